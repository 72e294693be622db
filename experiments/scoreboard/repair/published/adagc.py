"""AdaGC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.scoreboard.repair.published.base import Clipping


class AdaGC(Clipping):
    """Clips each tensor's gradient to ``relative`` times the moving average of its own clipped norms.

    During ``warmup`` steps it clips the global norm to ``limit`` instead, and the average is the least norm so far. A
    NaN enters the average and stays.

    References:
        Wang et al. 2025, "AdaGC: Improving Training Stability for Large Language Model Pretraining", arXiv 2502.11034,
        algorithm 1: relative 1.05, beta 0.98, limit 1, 100 steps of warm-up.
    """

    def __init__(self, relative: float = 1.05, beta: float = 0.98, limit: float = 1.0, warmup: int = 100) -> None:
        self.relative, self.beta, self.limit, self.warmup = relative, beta, limit, warmup
        self._steps: defaultdict[int, int] = defaultdict(int)
        self._averages: dict[Tensor, Tensor] = {}

    def clip(self, parameters: Sequence[Tensor], module: LightningModule, index: int) -> None:
        """Clip."""
        self._steps[index] += 1
        if self._steps[index] <= self.warmup:
            torch.nn.utils.clip_grad_norm_(parameters, self.limit)
        for parameter in parameters:
            if parameter.grad is not None:
                self._follow(parameter, parameter.grad, self._steps[index] <= self.warmup)

    def _follow(self, parameter: Tensor, gradient: Tensor, is_early: bool) -> None:
        """Clip one tensor's gradient, once the warm-up is over, and take its norm into the average."""
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        average = self._averages.get(parameter)
        if is_early:
            self._averages[parameter] = norm if average is None else torch.minimum(average, norm)
            return
        average = norm if average is None else average  # of a tensor that had no gradient before
        factor = (self.relative * average / norm.clamp(min=1e-12)).clamp(max=1.0)
        gradient.mul_(factor.to(gradient.dtype))
        self._averages[parameter] = self.beta * average + (1 - self.beta) * factor * norm
