"""Tasks: what a model is trained for. Each logs ``train/loss`` and ``val/quality``: 1 is perfect, 0 is chance."""

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task
from experiments.tasks.classifier import Classifier
from experiments.tasks.language import Language
from experiments.tasks.regressor import Regressor

__all__ = ["Classifier", "Language", "MakeOptimizer", "MakeSchedule", "Regressor", "Task"]
