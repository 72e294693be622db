"""ZClip."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance

from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.scoreboard.repair.published.base import Clipping, scale, total_norm


@dataclass
class _Average:
    first: list[float] = field(default_factory=list)
    mean: float = math.nan
    variance: float = math.nan


class ZClip(Clipping):
    """Clips a norm that is ``z`` deviations above its moving average, and any norm to ``limit``.

    The average is fed what the z-score has left of a norm. A NaN enters it and stays, as published.

    References:
        Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv 2504.02507; defaults of the
        authors' code: alpha 0.97, z 2.5, 25 steps of warm-up, adaptive scaling, at most a norm of 1.
    """

    def __init__(self, alpha: float = 0.97, z: float = 2.5, warmup: int = 25, limit: float = 1.0) -> None:
        self.alpha, self.z, self.warmup, self.limit = alpha, z, warmup, limit
        self._averages: defaultdict[int, _Average] = defaultdict(_Average)

    def clip(self, parameters: Sequence[Tensor], module: LightningModule, index: int) -> None:
        """Clip."""
        norm = total_norm(parameters)
        left = self._follow(norm, self._averages[index])
        limit = min(left, self.limit)
        if norm > limit:
            scale(parameters, limit / (norm + 1e-6))

    def _follow(self, norm: float, average: _Average) -> float:
        """Return what the z-score leaves of ``norm``."""
        if len(average.first) < self.warmup:
            average.first.append(norm)
            if len(average.first) == self.warmup:
                average.mean, average.variance = fmean(average.first), pvariance(average.first)
            return norm
        deviation = math.sqrt(average.variance)
        score = (norm - average.mean) / (deviation + 1e-6)
        left = average.mean + self.z * deviation / (score / self.z) if score > self.z else norm
        average.mean = self.alpha * average.mean + (1 - self.alpha) * left
        average.variance = self.alpha * average.variance + (1 - self.alpha) * (left - average.mean) ** 2
        return left
