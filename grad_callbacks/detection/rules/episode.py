"""An episode: alarms that belong together, so that one cause gives one alert and not hundreds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks.detection.rules.spans import SPANS


class Episode:
    """Counts alarms and the calm readings between them.

    Attributes:
        alarms: Alarms in the present episode; 0 when it is over.
        since: Readings without an alarm since the last one.
    """

    def __init__(self) -> None:
        self.alarms = 0
        self.since = 0

    @property
    def active(self) -> bool:
        """True from the first alarm until enough calm readings have passed."""
        return self.alarms > 0

    def alarm(self) -> int:
        """Note an alarm and return its number in the episode, from 1."""
        self.alarms += 1
        self.since = 0
        return self.alarms

    def calm(self, readings: int = 1) -> None:
        """Note readings without an alarm."""
        self.since += readings
        if self.since >= SPANS.recent:
            self.alarms = 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"alarms": self.alarms, "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.alarms, self.since = state["alarms"], state["since"]
