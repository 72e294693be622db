"""OLMo-core's skipped steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, norms


@dataclass(frozen=True)
class OLMo:
    """Alarms where OLMo-core's ``SkipStepOptimizer`` would skip: loss or norm is not within mean + 6 deviations.

    The window holds the last 128 values, outliers included, and must be half full. NaN is within nothing, and keeps
    every step out until it has left the window, as published.

    References:
        OLMo-core, ``optim/skip_step_optimizer.py``: rolling interval 128, sigma factor 6, every step.
    """

    window: int = 128
    sigmas: float = 6.0
    name: str = "OLMo 6 sigma"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Follow the loss of each batch, and the norms of each optimizer."""
        series = [("norm", *of_optimizer) for of_optimizer in norms(recording)]
        if np.isfinite(recording.losses).any():  # else no loss was ever told
            series.append(("loss", *recording.step_losses()))
        return in_order(
            Alarm(int(steps[i]), ANY, rule=rule) for rule, steps, values in series for i in self._outside(values)
        )

    def _outside(self, values: FloatArray) -> list[int]:
        outside = []
        with np.errstate(invalid="ignore", over="ignore"):
            for i in range(max(2, self.window // 2) - 1, len(values)):
                past = values[max(0, i - self.window) : i]
                if not values[i] - past.mean() <= self.sigmas * past.std(ddof=1):
                    outside.append(i)
        return outside
