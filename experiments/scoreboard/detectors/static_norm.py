"""A fixed limit on the global norm."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import norms


@dataclass(frozen=True)
class StaticNorm:
    """Warns when the global norm is above a fixed limit, as Lightning's proposed ``GradientStatsMonitor`` does.

    References:
        Lightning, pull requests 21596 and 21720 (not merged): limit 1e4, every step.
    """

    limit: float = 1e4
    name: str = "norm above 1e4"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limit."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Compare every norm. NaN is above nothing: as published."""
        return in_order(
            Alarm(int(step), ANY, rule="norm")
            for steps, values in norms(recording)
            for step in steps[values > self.limit]
        )
