"""Judging: readings in, alerts out. One file per kind of alert."""

from __future__ import annotations

from grad_callbacks.rules.base import Rule
from grad_callbacks.rules.exploding import Exploding
from grad_callbacks.rules.nonfinite import NonFinite
from grad_callbacks.rules.vanishing import Vanishing

# In the order of judgement: what spoils a reading altogether comes first.
RULES: dict[str, type[Rule]] = {"NonFinite": NonFinite, "Exploding": Exploding, "Vanishing": Vanishing}

__all__ = ["RULES", "Exploding", "NonFinite", "Rule", "Vanishing"]
