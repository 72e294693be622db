"""What all tasks with one model and one optimizer have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


class Task(LightningModule):
    """Trains one model with one optimizer.

    Args:
        model: Maps inputs to outputs.
        optimizer: Makes the optimizer from the parameters.
        schedule: Makes the schedule from the optimizer and the number of all its steps; it moves on at every step.
    """

    def __init__(self, model: nn.Module, optimizer: MakeOptimizer, schedule: MakeSchedule | None = None) -> None:
        super().__init__()
        self.model = model
        self._make_optimizer = optimizer
        self._make_schedule = schedule

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer of all parameters that are not frozen."""
        return self._make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])

    def configure_optimizers(self) -> Any:
        """Make optimizer and schedule."""
        optimizer = self.make_optimizer()
        if self._make_schedule is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": self._make_schedule(optimizer, steps), "interval": "step"}]

    # An optimizer that averages its weights, as schedule-free ones do, trains with others than it is judged by.

    def on_train_start(self) -> None:
        """Give the model the weights that are trained."""
        self._switch_optimizers("train")

    def on_validation_start(self) -> None:
        """Give the model the weights that are judged."""
        self._switch_optimizers("eval")

    def on_validation_end(self) -> None:
        """Give the model the weights that are trained."""
        self._switch_optimizers("train")

    def _switch_optimizers(self, mode: str) -> None:
        for optimizer in self.trainer.optimizers:
            switch = getattr(optimizer, mode, None)
            if switch is not None:
                switch()
