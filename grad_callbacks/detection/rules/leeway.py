"""How far a run may go on before a rule has to judge it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class LeewayThresholds(Thresholds):
    """Numbers of :class:`Leeway`, none of which decides on an alert."""

    any: int = threshold(
        1_000_000,
        "stands for any number: more are never taken in together",
        unit="readings",
        source="formula: far beyond `most`",
    )
    most: int = threshold(
        16,
        "longest promise about norms, whose median moves meanwhile",
        unit="readings",
        source="not measured; a longer one would have to hold for smaller norms",
    )

    @property
    def rounding(self) -> float:
        """A limit is promised up to this share of it, so that no rounding breaks the promise."""
        return float(1 - np.finfo(np.float32).eps)


LEEWAY = LeewayThresholds()


class Leeway(NamedTuple):
    """A promise of a rule: as long as these bounds hold it raises no alert and is not active.

    Attributes:
        readings: So many readings from now on, each of them finite and over a whole accumulation window.
        norm: Their global norms are at most this.
        loss: Their losses are at most this, or unknown,
        spare: but for so many of them.
    """

    readings: int = 0
    norm: float = math.inf
    loss: float = math.inf
    spare: int = 0

    def and_of(self, other: Leeway) -> Leeway:
        """Return what both promise."""
        strict, free = (self, other) if self.loss < other.loss else (other, self)
        spare = strict.spare if free.loss == math.inf else min(strict.spare, free.spare)
        return Leeway(min(self.readings, other.readings), min(self.norm, other.norm), strict.loss, spare)


NO_LEEWAY = Leeway()
