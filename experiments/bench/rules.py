"""A rule that has clipping switched on from the first reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks import Alert, Reading, Rule


class FromTheStart(Rule):
    """Raises one alert, at the first reading."""

    kind: str = "exploding"

    def __init__(self) -> None:
        self._has_spoken = False

    @property
    def active(self) -> bool:
        """True from its alert on."""
        return self._has_spoken

    def judge(self, reading: Reading) -> Alert | None:
        """Alert once."""
        if self._has_spoken:
            return None
        self._has_spoken = True
        return Alert(self.kind, "warning", reading.step, (), "clipped from the start", {}, "", "", reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return whether it has spoken."""
        return {"has_spoken": self._has_spoken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._has_spoken = state["has_spoken"]
