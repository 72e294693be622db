"""Lower the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks.checks import fraction
from grad_callbacks.remedies.optimizer_step import OptimizerStep


class ReduceLR:
    """Multiplies the learning rate of all parameter groups with ``factor``, under any scheduler.

    The factor acts during the optimizer's steps only (see
    :class:`~grad_callbacks.remedies.learning_rate.LearningRate`), so a schedule keeps its shape.
    Each alert lowers the rate once more, down to the floor.

    Args:
        factor: What the rate is multiplied with, between 0 and 1.
        floor: The scale below which it does not go: with 1e-3 the rate is lowered a thousandfold at most.

    Raises:
        ValueError: If ``factor`` or ``floor`` does not lie between 0 and 1.
    """

    def __init__(self, factor: float = 0.1, floor: float = 1e-3) -> None:
        self.factor = fraction("factor", factor)
        self.floor = fraction("floor", floor)
        self._scale = 1.0

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Lower the rate, this step's included, unless that would go below the floor."""
        if self._scale * self.factor < self.floor * (1 - 1e-9):  # 0.1 ** 3 is a little below 1e-3
            return None
        self._scale *= self.factor
        step.learning_rate.reduce(self.factor)
        return {"factor": self.factor, "lr_scale": step.learning_rate.scale, "lr": step.learning_rate.effective()}

    def act(self, step: OptimizerStep) -> bool:
        """Report whether the rate is lowered; the optimizer's hooks do it."""
        return self._scale < 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale."""
        return {"scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._scale = state["scale"]
