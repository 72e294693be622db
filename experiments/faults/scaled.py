"""Losses and weights that are suddenly larger."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from experiments.faults.base import Fault


class OutlierLoss(Fault):
    """Multiplies the loss that is trained, as a batch with a wrong weight or without its mean does.

    For tasks with a ``loss_factor``.

    Args:
        step: As for :class:`Fault`.
        factor: Multiplies the loss.
        steps: As for :class:`Fault`.
    """

    def __init__(self, step: int, factor: float, steps: int | None = 1) -> None:
        super().__init__(step, steps)
        self.factor = factor
        self._is_outlying = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Multiply the task's factor when the fault begins, and take it back when it is over."""
        task: Any = pl_module
        if self.active(trainer) != self._is_outlying:
            self._is_outlying = not self._is_outlying
            task.loss_factor = task.loss_factor * (self.factor if self._is_outlying else 1 / self.factor)


class ScaledWeights(Fault):
    """Multiplies weights once, as a damaged checkpoint or a bit that flips does.

    Args:
        step: The optimizer step before which it happens, from 0.
        module: Name in the task, such as ``model.layers.1``, of the module whose matrices are changed.
        factor: Multiplies the weights.
        share: Of all entries, how many are changed; which ones is drawn by lot.
    """

    def __init__(self, step: int, module: str, factor: float = 10.0, share: float = 1.0) -> None:
        super().__init__(step, steps=1)
        self.module, self.factor, self.share = module, factor, share
        self._done = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Multiply the weights before the step, once."""
        if self._done or not self.active(trainer):
            return
        self._done = True
        lot = torch.Generator().manual_seed(self.step)
        with torch.no_grad():
            for parameter in pl_module.get_submodule(self.module).parameters():
                if parameter.dim() > 1:
                    hit = torch.rand(parameter.shape, generator=lot).to(parameter.device) < self.share
                    parameter.mul_(torch.where(hit, self.factor, 1.0).to(parameter.dtype))
