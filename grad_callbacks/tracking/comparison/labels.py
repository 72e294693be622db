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


def run_label(row: Any) -> str:
    """Return a run's name within its scenario: its variant and its guard."""
    guard = "unguarded" if row["guard"] == "none" else str(row["guard"])
    parts = [*([] if row["variant"] == "plain" else [str(row["variant"])]), *([guard] if guard else [])]
    return ", ".join(parts) or "run"
