"""Skip optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks.remedies.base import OptimizerStep


class SkipStep:
    """Skips the step that raised the alert, and every later step with a non-finite gradient.

    A skipped step is an exact no-op for weights and optimizer: no momentum, no weight decay, no step count.
    ``global_step`` and schedulers advance all the same.
    """

    def __init__(self) -> None:
        self._engaged = False
        self._skip_this = False

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Skip this step."""
        self._engaged = self._skip_this = True
        if not step.reading.is_finite:
            return {"nonfinite_entries": step.reading.nonfinite}
        return {"norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool:
        """Skip the step if it is the alert's own, or not finite."""
        skip = self._skip_this or (self._engaged and not step.reading.is_finite)
        self._skip_this = False
        if skip:
            step.skip()
        return skip

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is switched on."""
        return {"engaged": self._engaged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._engaged = state["engaged"]
