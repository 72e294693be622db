"""The training loss: the course it takes, and whether it has come back after the first alert."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

FIRST = 10  # losses that tell where the run began
LEVEL = 5  # losses over which a rule takes a level: a median of 5 passes over two bad batches
LEARNED = 0.1  # of its size that a loss must have come down: more than what a head learns by its bias alone


class LossLevel:
    """What rules ask of the training loss, whatever its scale: all is relative to where the run began.

    Losses that are unknown or not finite never enter.

    Attributes:
        count: Losses so far.
        level: The present level, a median of 5; NaN before there are as many.
        best: The lowest level so far; infinite before there is one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.level, self.best = math.nan, math.inf
        self._first: list[float] = []
        self._recent: list[float] = []

    @property
    def scale(self) -> float:
        """The largest of the first 10 absolute losses; NaN before there is one.

        Losses that may be negative or begin near zero (log-likelihoods, policy gradients) have no other natural unit.
        """
        return max(map(abs, self._first)) if self._first else math.nan

    @property
    def start(self) -> float:
        """The level of the first losses; NaN before there are 5."""
        return median(self._first[:LEVEL]) if len(self._first) >= LEVEL else math.nan

    @property
    def gained(self) -> float:
        """How far the level has come down at best, relative to :attr:`scale`; NaN before that is known."""
        return (self.start - self.best) / self.scale if self.scale > 0 and math.isfinite(self.best) else math.nan

    @property
    def risen(self) -> float:
        """The present level relative to :attr:`scale`: 1 is as bad as the run began; NaN before that is known."""
        return self.level / self.scale if self.scale > 0 else math.nan

    def feed(self, loss: float) -> None:
        """Take in the loss of a reading."""
        if not math.isfinite(loss):
            return
        self.count += 1
        if len(self._first) < FIRST:
            self._first.append(loss)
        self._recent = [*self._recent, loss][-LEVEL:]
        self._take_level()
        if self.count >= LEVEL:
            self.best = min(self.best, self.level)

    def _take_level(self) -> None:
        self.level = median(self._recent) if len(self._recent) == LEVEL else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {"count": self.count, "first": list(self._first), "recent": list(self._recent), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self.best = state["count"], state["best"]
        self._first, self._recent = list(state["first"]), list(state["recent"])
        self._take_level()
