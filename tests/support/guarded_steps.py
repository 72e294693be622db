"""A run with a spike, and what each of its steps does to the weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule

from grad_callbacks import GradientMonitor
from tests.support.helpers import Poisoned, fit, mlp


class Steps(Callback):
    """Writes down what each step does to the weights, and with which gradient norm and learning rate."""

    def __init__(self) -> None:
        self.changes: list[float] = []
        self.norms: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = torch.nn.utils.parameters_to_vector(pl_module.parameters()).clone()

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *args: Any) -> None:
        after = torch.nn.utils.parameters_to_vector(pl_module.parameters())
        self.changes.append(float((after - self.before).norm()))
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()) if gradients else 0.0)


def spiked(guard: GradientMonitor, factors: dict[int, float] | None = None, **options: Any) -> Steps:
    """A run of 32 steps with a spike at step 15."""
    torch.manual_seed(0)
    steps = Steps()
    fit(Poisoned(mlp(4, 8, 8, 2), factors={15: 1e4} if factors is None else factors), guard, steps, **options)
    return steps
