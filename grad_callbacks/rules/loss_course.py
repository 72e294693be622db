"""The course of the loss: where it began, how far it has come down, and whether it has been lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

FIRST = 10  # losses that tell where the run began
WINDOW = 5  # losses over which a level is taken: a median of 5 passes over two bad batches


class LossCourse:
    """What rules ask of the training loss, whatever its scale: all is relative to where the run began.

    Losses that are unknown or not finite never enter.

    Attributes:
        count: Losses so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: list[float] = []
        self._recent: list[float] = []
        self._best = math.inf

    @property
    def scale(self) -> float:
        """The largest of the first 10 absolute losses; NaN before there is one.

        Losses that may be negative or begin near zero (log-likelihoods, policy gradients) have no other natural unit.
        """
        return max(map(abs, self._first)) if self._first else math.nan

    @property
    def start(self) -> float:
        """The level of the first losses; NaN before there are 5."""
        return median(self._first[:WINDOW]) if len(self._first) >= WINDOW else math.nan

    @property
    def level(self) -> float:
        """The present level, a median of 5; NaN before there are as many."""
        return median(self._recent) if len(self._recent) == WINDOW else math.nan

    @property
    def gained(self) -> float:
        """How far the level has come down at best, relative to :attr:`scale`; NaN before that is known."""
        return (self.start - self._best) / self.scale if self.scale > 0 and math.isfinite(self._best) else math.nan

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
        self._recent = [*self._recent, loss][-WINDOW:]
        if self.count >= WINDOW:
            self._best = min(self._best, self.level)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {"count": self.count, "first": list(self._first), "recent": list(self._recent), "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self._best = state["count"], state["best"]
        self._first, self._recent = list(state["first"]), list(state["recent"])
