"""A rule that has clipping switched on from the first reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks import Alert, Reading
from grad_callbacks.events import Kind


class FromTheStart:
    """Raises one alert, at the first reading."""

    kind: Kind = "exploding"

    def __init__(self) -> None:
        self.active = False

    def judge(self, reading: Reading) -> Alert | None:
        """Alert once."""
        if self.active:
            return None
        self.active = True
        return Alert(self.kind, "warning", reading.step, (), "clipped from the start", {}, "", "", reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return whether it has spoken."""
        return {"active": self.active}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.active = state["active"]
