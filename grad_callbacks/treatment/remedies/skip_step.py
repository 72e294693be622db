"""Skip optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class SkipStep(SkipNext, Remedy):
    """Skips the step that raised the alert, and every later step with a non-finite gradient.

    A skipped step is an exact no-op for weights and optimizer: no momentum, no weight decay, no step count.
    ``global_step`` and schedulers advance all the same.
    """

    skips_steps = True
    skips_nonfinite = True

    def __init__(self) -> None:
        self._engaged = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Skip this step."""
        if step.is_taken and step.reading.is_finite:
            return None
        self._engaged = True
        self.skip_next_step(not step.is_taken)
        if not step.reading.is_finite:
            return {"nonfinite_parameters": step.reading.nonfinite}
        return {"norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the step if it raised the alert, or is not finite."""
        return self._skips(step) or (step.skip_if_nonfinite() if self._engaged else False)

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if not self._engaged and not self._skip_next else 0

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is switched on."""
        return {"engaged": self._engaged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._engaged = state["engaged"]
