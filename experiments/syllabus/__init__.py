"""The syllabus: causes and cures of vanishing and exploding gradients as runs, and what came of each claim."""
