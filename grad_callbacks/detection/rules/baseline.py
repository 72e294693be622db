"""The run's own normal: a level that no outlier can move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from grad_callbacks._utils.running_median import RunningMedian
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.rules.spans import SPANS


@dataclass(frozen=True)
class BaselineThresholds(Thresholds):
    """The number of the usual gradient norm of a run."""

    window: int = threshold(100, "readings over which the median is taken", unit="readings", source="not measured")


LIMITS = BaselineThresholds()


class Baseline:
    """The usual global norm of a run: the median of a window, never below the run's early level.

    The floor is needed because norms fall toward 0 as a run converges, and then every batch with a hard
    example would look like a spike. Norms that are zero (a batch with nothing to learn) or not finite never
    enter. A norm beyond ``limit`` times the level waits in quarantine: only when a whole quarantine of them
    comes in a row is it the new normal.

    Args:
        limit: Multiple of the level beyond which a norm goes to quarantine.

    Attributes:
        level: The usual norm; NaN during the warm-up.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.level = math.nan
        self._early: list[float] = []
        self._early_level = math.nan
        self._recent = RunningMedian(LIMITS.window)
        self._outliers: list[float] = []

    @property
    def highest(self) -> float:
        """The largest of the last 10 norms, quarantined ones left out; NaN during the warm-up."""
        return self._recent.largest_of_last(SPANS.level) if len(self._recent) >= SPANS.level else math.nan

    def lowest(self, readings: int) -> float:
        """Return what the level cannot fall below in so many readings, as long as none goes to quarantine."""
        early = self._early_level if len(self._early) >= SPANS.recent else 0.0
        # Each reading moves the median by one place at most.
        return max(self._recent.below_median(readings), early)

    def feed(self, norm: float) -> None:
        """Take in the norm of a reading."""
        if not math.isfinite(norm) or norm <= 0:
            return
        if norm > self.limit * self.level:  # never so during the warm-up: the level is NaN
            self._outliers.append(norm)
            if len(self._outliers) >= SPANS.level:
                self._recent, self._outliers = RunningMedian(LIMITS.window, self._outliers), []
                self._take_level()
            return
        self._outliers.clear()
        self._recent.append(norm)
        if len(self._early) < SPANS.recent:
            self._early.append(norm)
            self._early_level = median(self._early)
        self._take_level()

    def _take_level(self) -> None:
        if len(self._recent) >= SPANS.level:
            self.level = max(self._recent.median, self._early_level)

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists of numbers."""
        return {"early": list(self._early), "recent": list(self._recent), "outliers": list(self._outliers)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._early, self._outliers = list(state["early"]), list(state["outliers"])
        self._early_level = median(self._early) if self._early else math.nan
        self._recent = RunningMedian(LIMITS.window, state["recent"])
        self.level = math.nan
        self._take_level()
