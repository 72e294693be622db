"""A callback that clips the gradients of every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Clipping(Callback):
    """Clips the gradients of each optimizer before each of its steps."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if parameters:
            self.clip(parameters, pl_module, trainer.optimizers.index(optimizer))

    def clip(self, parameters: Sequence[Tensor], module: LightningModule, index: int) -> None:
        """Clip the gradients of ``parameters``, those of the optimizer with this index."""
        raise NotImplementedError


def total_norm(parameters: Sequence[Tensor]) -> float:
    """Return the global norm of the gradients."""
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def scale(parameters: Sequence[Tensor], factor: float) -> None:
    """Multiply the gradients with ``factor``."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
