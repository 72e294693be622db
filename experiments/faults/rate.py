"""A learning rate that is raised while the run goes on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from experiments.faults.base import Fault


class RaisedRate(Fault):
    """Multiplies the learning rate of all optimizers, and with it the rates that their schedules start from.

    Args:
        step: As for :class:`Fault`.
        factor: Multiplies the rate.
        steps: As for :class:`Fault`; after them the rate is what it would have been.
    """

    def __init__(self, step: int, factor: float, steps: int | None = None) -> None:
        super().__init__(step, steps)
        self.factor = factor
        self._raised = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Raise the rate when the fault begins, and take it back when it is over."""
        if self.active(trainer) != self._raised:
            self._multiply(trainer, 1 / self.factor if self._raised else self.factor)
            self._raised = not self._raised

    def _multiply(self, trainer: Trainer, factor: float) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for name in {"lr", "initial_lr", "max_lr", "min_lr"} & group.keys():
                    group[name] *= factor
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
