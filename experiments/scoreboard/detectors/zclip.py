"""ZClip's z-score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, norms


@dataclass(frozen=True)
class ZClip:
    """Alarms where ZClip would clip: the norm is ``z`` deviations above an exponential moving average.

    The average starts from ``warmup`` norms and is fed what the gradient is clipped to. The limit at a norm of 1 that
    clips regardless is no alarm. A NaN enters the average and stays, as published.

    References:
        Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv 2504.02507; defaults of the
        authors' code: alpha 0.97, z 2.5, 25 steps of warm-up, adaptive scaling, every step.
    """

    alpha: float = 0.97
    z: float = 2.5
    warmup: int = 25
    epsilon: float = 1e-6
    name: str = "ZClip z-score"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Follow the norms of each optimizer."""
        return in_order(
            Alarm(int(steps[i]), ANY, rule="z-score")
            for steps, values in norms(recording)
            for i in self._spikes(values)
        )

    def _spikes(self, values: FloatArray) -> list[int]:
        if len(values) <= self.warmup:
            return []
        with np.errstate(invalid="ignore", over="ignore"):
            mean, variance = values[: self.warmup].mean(), values[: self.warmup].var()
            spikes = []
            for i, norm in enumerate(values[self.warmup :], self.warmup):
                deviation = np.sqrt(variance)
                score = (norm - mean) / (deviation + self.epsilon)
                if score > self.z:
                    spikes.append(i)
                    norm = mean + self.z * deviation / (score / self.z)
                mean = self.alpha * mean + (1 - self.alpha) * norm
                variance = self.alpha * variance + (1 - self.alpha) * (norm - mean) ** 2
        return spikes
