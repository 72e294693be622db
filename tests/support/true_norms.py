"""The norms of a run's steps, as they are and as a monitor has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback

from grad_callbacks import GradientMonitor


class Spy(Callback):
    """Writes down the true global norm of every optimizer step, in float64."""

    def __init__(self) -> None:
        self.norms: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms[trainer.global_step] = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


def global_norms(monitor: GradientMonitor) -> dict[int, float]:
    """What a monitor has as the global norm of each step."""
    norms = monitor.history().groupby("step")["norm"].agg(lambda norm: np.sqrt(np.sum(norm.to_numpy() ** 2)))
    return {int(step): float(norm) for step, norm in norms.items()}
