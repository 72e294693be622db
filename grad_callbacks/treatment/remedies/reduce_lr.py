"""Lower the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least, fraction
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.remedies.warmup import LIMITS as WARMUP
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class ReduceLRThresholds(Thresholds):
    """The numbers of :class:`ReduceLR`."""

    factor: float = threshold(
        0.1,
        "factor on the learning rate at each alert",
        unit="1",
        source="Zhang et al. 2022 (OPT), sec. 2.5, for the practice; the value is not measured",
    )
    floor: float = threshold(1e-3, "smallest rate", unit="x the user's rate", source="not measured")


LIMITS = ReduceLRThresholds()


class ReduceLR(Remedy):
    """Multiplies the learning rate of all parameter groups with ``factor``, under any scheduler.

    The factor acts during the optimizer's steps only (see
    :class:`~grad_callbacks.treatment.step.learning_rate.LearningRate`), so a schedule keeps its shape.
    Each alert lowers the rate once more, down to the floor. Once it is released the rate goes back up to the user's own
    by equal factors.
    Reference: the rate divided when training diverges, as practised for OPT (Zhang et al. 2022, sec. 2.5).

    Args:
        factor: The rate is multiplied with it, between 0 and 1.
        floor: The scale below which it does not go: with 1e-3 the rate is lowered a thousandfold at most.
        rewarm: Steps in which a released rate goes back up.

    Raises:
        ValueError: If ``factor`` or ``floor`` does not lie between 0 and 1, or ``rewarm`` is no whole number of at
            least 1.
    """

    def __init__(self, factor: float = LIMITS.factor, floor: float = LIMITS.floor, rewarm: int = WARMUP.steps) -> None:
        self.factor = fraction("factor", factor)
        self.floor = fraction("floor", floor)
        self.rewarm = at_least("rewarm", rewarm, 1)
        self._multiplier = LRMultiplier()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Lower the rate, this step's included, unless that would go below the floor."""
        lowered = self._multiplier.scale * self.factor
        if lowered < self.floor and not math.isclose(lowered, self.floor):  # 0.1 ** 3 is a little below 1e-3
            return None
        self._multiplier.rising = 0
        self._multiplier.set(step.learning_rate, lowered)
        return {"factor": self.factor, "lr_scale": step.learning_rate.scale, "lr": step.learning_rate.effective()}

    def act(self, step: OptimizerStep) -> bool:
        """Report whether the rate is lowered; the optimizer's hooks do it."""
        self._multiplier.rise(step.learning_rate)
        return self._multiplier.scale < 1.0

    def release(self, step: OptimizerStep) -> bool:
        """Let the rate go back up from the next step on."""
        if self._multiplier.scale == 1.0 or self._multiplier.rising:
            return False
        self._multiplier.rising = self.rewarm
        return True

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._multiplier.scale == 1.0 and not self._multiplier.rising else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale."""
        return self._multiplier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._multiplier.load_state_dict(dict(state))
