"""Clip gradients entry by entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.switched import Switched
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class ClipValueThresholds(Thresholds):
    """The numbers of :class:`ClipValue`."""

    max_value: float = threshold(
        1.0, "largest absolute value of a gradient's entry", unit="the gradients' own scale", source="not measured"
    )


LIMITS = ClipValueThresholds()


class ClipValue(Switched):
    """Clamps every gradient entry to ``[-max_value, max_value]``.

    It changes the gradient's direction, and it limits large entries only: small ones stay as small as they were.
    Clipping by norm is the better remedy for most explosions.
    Reference: Mikolov 2012, "Statistical Language Models Based on Neural Networks", sec. 3.2.2.

    Args:
        max_value: The limit of an entry's absolute value, in the gradients' own scale.

    Raises:
        ValueError: If ``max_value`` is not above 0.
    """

    clips = True
    bounds_steps = True
    changes_gradients = True

    def __init__(self, max_value: float = LIMITS.max_value) -> None:
        self.max_value = positive("max_value", max_value)
        super().__init__()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Clamp from this step on. Once only, and not for a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        self._engaged = True
        return {"max_value": self.max_value, "norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clamp."""
        return step.limit_values(self.max_value) if self._engaged else False

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return 0 if self._engaged else LEEWAY.any
