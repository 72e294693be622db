"""Texts that all forms of a comparison share."""

from __future__ import annotations

import math
from typing import Any


def plus_minus(mean: float, spread: float, sign: bool = False) -> str:
    """Return a mean with its spread, as in ``0.953 ± 0.012``; a dash if the mean is NaN."""
    if math.isnan(mean):
        return "–"
    text = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return text if math.isnan(spread) else f"{text} ± {spread:.3f}"


def shown(text: object) -> str:
    """Return a text of a store for a terminal: without control characters, which could move its cursor."""
    return "".join(character if character.isprintable() else "�" for character in str(text))


def seeds_label(row: Any) -> str:
    """Return how many runs were averaged, and how many were not, as in ``6 (1 failed, 2 stopped)``."""
    left_out = ", ".join(f"{row[name]} {name}" for name in ("failed", "stopped") if row[name])
    return f"{row['seeds']} ({left_out})" if left_out else str(row["seeds"])


def run_label(row: Any) -> str:
    """Return a run's name within its scenario: its variant and its guard."""
    guard = "unguarded" if row["guard"] == "none" else str(row["guard"])
    parts = [*([] if row["variant"] == "plain" else [str(row["variant"])]), *([guard] if guard else [])]
    return ", ".join(parts) or "run"
