"""Remedies that are on or off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class Switched(Remedy):
    """A remedy that is on or off, and has no other state."""

    def __init__(self) -> None:
        self._engaged = False

    def release(self, step: OptimizerStep) -> bool:
        """Switch it off; an alert switches it on again."""
        was_on, self._engaged = self._engaged, False
        return was_on

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is switched on."""
        return {"engaged": self._engaged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._engaged = state["engaged"]
