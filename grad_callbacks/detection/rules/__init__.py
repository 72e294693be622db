"""Judging: readings in, alerts out. One file per kind of alert."""

from __future__ import annotations

from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.exploding import Exploding
from grad_callbacks.detection.rules.nonfinite import NonFinite
from grad_callbacks.detection.rules.vanishing import Vanishing

# In the order of judgement: an explosion that leaves nothing finite is the first cause, and is told first.
RULES: dict[str, type[Rule]] = {"Exploding": Exploding, "NonFinite": NonFinite, "Vanishing": Vanishing}

__all__ = ["RULES", "Exploding", "NonFinite", "Rule", "Vanishing"]
