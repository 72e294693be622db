"""The level of the training loss, relative to where the run began."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class LossLevelThresholds(Thresholds):
    """Thresholds of the level of the training loss."""

    window: int = threshold(
        5,
        "losses whose median is a level",
        unit="losses",
        source="the median of 5 is unaffected by two bad batches",
    )
    learned: float = threshold(
        0.1,
        "a loss that has come down by more has learned something: more than a head learns by its bias alone",
        unit="share of the loss at the start",
        source="not measured",
    )


LOSS_LEVEL = LossLevelThresholds()


class LossLevel:
    """The level of the training loss, whatever its scale: all is relative to where the run began.

    Losses that are unknown or not finite are left out.

    Attributes:
        count: Losses so far.
        level: The present level, a median of 5; NaN before there are as many.
        scale: The largest of the first 10 absolute losses; NaN before there is one. Losses that may be negative or
            begin near zero (log-likelihoods, policy gradients) have no other natural unit.
        start: The level of the first losses; NaN before there are 5.
        best: The lowest level so far; infinite before there is one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.level, self.best = math.nan, math.inf
        self.scale = self.start = math.nan
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=LOSS_LEVEL.window)

    @property
    def gained(self) -> float:
        """How far the level has come down at best, relative to :attr:`scale`; NaN before that is known."""
        return (self.start - self.best) / self.scale if self.scale > 0 and math.isfinite(self.best) else math.nan

    @property
    def risen(self) -> float:
        """The present level relative to :attr:`scale`: 1 is as bad as the run began; NaN before that is known."""
        return self.level / self.scale if self.scale > 0 else math.nan

    def spare(self, limit: float) -> int:
        """Return how many of the losses to come may be above ``limit`` before the level can be; below 0 if it may."""
        high = sum(loss > limit for loss in list(self._recent)[1 - LOSS_LEVEL.window :])
        return LOSS_LEVEL.window // 2 - high

    def feed(self, loss: float) -> None:
        """Take in the loss of a reading."""
        if not math.isfinite(loss):
            return
        self.count += 1
        if len(self._first) < 2 * LOSS_LEVEL.window:
            self._first.append(loss)
            self._take_start()
        self._recent.append(loss)
        self._take_level()
        if self.count >= LOSS_LEVEL.window:
            self.best = min(self.best, self.level)

    def _take_start(self) -> None:
        self.scale = max(map(abs, self._first)) if self._first else math.nan
        is_known = len(self._first) >= LOSS_LEVEL.window
        self.start = median(self._first[: LOSS_LEVEL.window]) if is_known else math.nan

    def _take_level(self) -> None:
        is_known = len(self._recent) == LOSS_LEVEL.window
        self.level = sorted(self._recent)[LOSS_LEVEL.window // 2] if is_known else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {"count": self.count, "first": list(self._first), "recent": list(self._recent), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self.best = state["count"], state["best"]
        self._first = list(state["first"])
        self._recent = deque(state["recent"], maxlen=LOSS_LEVEL.window)
        self._take_start()
        self._take_level()
