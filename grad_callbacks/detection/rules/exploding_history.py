"""What the rule for exploding gradients remembers of a run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from grad_callbacks.detection.rules.baseline import Baseline
from grad_callbacks.detection.rules.exploding_thresholds import ExplodingThresholds
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.detection.rules.surge import Surge
from grad_callbacks.measurement import QuietBlock, Reading
from grad_callbacks.measurement.loss_level import LOSS_LEVEL, LossLevel


class RunHistory:
    """The run so far, as far as the conditions for an explosion need it.

    Args:
        limits: Thresholds of the rule.

    Attributes:
        limits: Thresholds of the rule.
        baseline: The usual gradient norm.
        loss: Level of the training loss.
        loss_before: The level of the loss before the present reading; NaN if unknown.
        readings: Finite readings so far, the present one counted.
        first_norm: Gradient norm of the first reading.
        first_loss: Absolute loss of the first reading.
        last_norm: Gradient norm of the reading before; infinite without one.
        lost_for: Readings in a row for which half of what was learned has been lost.
        large_while_lost: How many of these had a norm well above the usual one.
        surge: Motion and loss beside the run's own usual ones.
        is_recurrent: The network has recurrent layers.
        recurrence: Powers of ten by which recurrent weights would multiply an error over a sequence, measured at the
            first reading; NaN if not.
    """

    def __init__(self, limits: ExplodingThresholds) -> None:
        self.limits = limits
        self.baseline = Baseline(limit=limits.factor)
        self.loss = LossLevel()
        self.loss_before = math.nan
        self.readings = 0
        self.first_norm, self.first_loss = math.nan, math.nan
        self.last_norm = math.inf
        self.lost_for = self.large_while_lost = 0
        self.surge = Surge()
        self.is_recurrent = False
        self.recurrence = math.nan
        self._updates: deque[float] = deque(maxlen=SPANS.recent)  # how far the latest have moved all weights

    @property
    def is_early(self) -> bool:
        """True during the first readings."""
        return self.readings <= SPANS.recent

    @property
    def has_baseline(self) -> bool:
        """True once there is a usual norm."""
        return math.isfinite(self.baseline.level)

    @property
    def largest_update(self) -> float:
        """The farthest that one of the latest updates has moved all weights, relative to their norm; 0 if unknown."""
        return max(self._updates, default=0.0)

    @property
    def is_chaotic(self) -> bool:
        """True if recurrent weights would multiply an error over a sequence by far too much."""
        return self.recurrence > self.limits.chaotic_powers

    def take_in(self, reading: Reading) -> None:
        """Take in a finite reading, before it is judged."""
        if self.readings == 0:
            self.first_norm, self.first_loss = reading.comparable_norm, abs(reading.loss)
            self.recurrence = reading.recurrence
        self.is_recurrent = self.is_recurrent or math.isfinite(reading.through_time)
        self.take_in_numbers(reading.comparable_norm, reading.loss, reading.moved, is_adaptive(reading))

    def take_in_numbers(self, norm: float, loss: float, moved: float, is_adaptive: bool) -> None:
        """Take in what of a reading differs from the one before; the first reading needs :meth:`take_in`.

        Args:
            norm: Its global norm, as over a whole accumulation window.
            loss: The training loss.
            moved: How far the step last measured has moved all weights, relative to them.
            is_adaptive: The size of an update does not follow from its gradient.
        """
        self.loss_before = self.loss.level
        self.loss.feed(loss)
        self.readings += 1
        if math.isfinite(moved):
            self._updates.append(moved)
        if is_adaptive:
            self.surge.take_in(moved, loss, self.loss.level)
        if self._has_lost_progress:
            self.lost_for += 1
            self.large_while_lost += norm > 2 * self.baseline.level
        else:
            self.lost_for = self.large_while_lost = 0

    @property
    def _has_lost_progress(self) -> bool:
        loss = self.loss
        return loss.gained > LOSS_LEVEL.learned and loss.level > (loss.start + loss.best) / 2

    def close(self, reading: Reading, is_normal: bool) -> None:
        """Finish a finite reading that has been judged.

        Args:
            reading: The reading.
            is_normal: Its norm counts for the usual one.
        """
        self.last_norm = reading.comparable_norm
        if is_normal:
            self.baseline.feed(reading.comparable_norm)

    def take_in_block(self, block: QuietBlock) -> None:
        """Take in and close finite readings of which none is wrong."""
        is_adaptive = block.is_adaptive
        for norm, reading in zip(block.norms, block.readings, strict=True):
            self.take_in_numbers(norm, reading.loss, reading.moved, is_adaptive)
            self.baseline.feed(norm)
        self.last_norm = block.norms[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "baseline": self.baseline.state_dict(),
            "course": self.loss.state_dict(),
            "first": [self.first_norm, self.first_loss] if self.readings else [],
            "last_norm": self.last_norm,
            "moves": list(self._updates),
            "surge": self.surge.state_dict(),
            "lost": [self.lost_for, int(self.large_while_lost)],
            "count": self.readings,
            "is_recurrent": self.is_recurrent,
            "recurrence": self.recurrence,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.baseline.load_state_dict(state["baseline"])
        self.loss.load_state_dict(state["course"])
        self.first_norm, self.first_loss = state["first"] or (math.nan, math.nan)
        self.last_norm = state["last_norm"]
        if "surge" in state:  # an older version did not look for one
            self.surge.load_state_dict(state["surge"])
        self._updates = deque(state["moves"], maxlen=SPANS.recent)
        self.lost_for, self.large_while_lost = state.get("lost", (0, 0))  # an older version did not count it
        self.readings, self.is_recurrent = state["count"], state["is_recurrent"]
        self.recurrence = state["recurrence"]


def is_adaptive(reading: Reading) -> bool:
    """True where the size of an update does not follow from its gradient, as with Adam."""
    return math.isnan(reading.displacement)
