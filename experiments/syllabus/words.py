"""Numbers and links of the document, in few characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.syllabus.judging import Many


def number(value: float) -> str:
    """Return three digits of a number, or two and a power of ten; an en dash if there is none."""
    if math.isnan(value):
        return "–"
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def quality(many: Many | None) -> str:
    """Return the median quality and its range; an en dash if nothing was trained."""
    if many is None:
        return "–"
    middle, low, high = (share(value) for value in (many.quality, min(many.qualities), max(many.qualities)))
    return middle if low == high else f"{middle} ({low}–{high})"


def share(value: float) -> str:
    """Return a quality; a language model worse than a guess has one below 0."""
    return "<0" if value < -0.005 else f"{abs(value):.2f}"


def link(problem: str) -> str:
    """Return a link to a problem's section."""
    return f"[{problem}](#{problem})"


def row(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows)]) + "\n"
