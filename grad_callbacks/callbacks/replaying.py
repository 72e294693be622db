"""Running a training step again, for the diagnosis of an alert."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from grad_callbacks.diagnosis import Batch


def batch_of(trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> Batch:
    """Describe the batch of a step, with a way to compute its loss again.

    There is none in manual optimization, whose ``training_step`` would step the optimizers, and where
    ``training_step`` fetches its batches itself.
    """
    accepted = list(inspect.signature(pl_module.training_step).parameters)
    if not pl_module.automatic_optimization or "dataloader_iter" in accepted:
        return Batch(batch, batch_idx)
    arguments = (batch, batch_idx, 0)[: len(accepted)]
    return Batch(batch, batch_idx, lambda: _loss_of(trainer, pl_module, arguments))


def _loss_of(trainer: Trainer, pl_module: LightningModule, arguments: tuple[Any, ...]) -> Tensor:
    """Run ``training_step`` with nothing logged; whoever calls this undoes what it does to the module."""
    pl_module.__dict__["log"] = pl_module.__dict__["log_dict"] = _keep_quiet
    loggers, trainer.loggers = trainer.loggers, [DummyLogger()] if trainer.loggers else []
    try:
        with trainer.precision_plugin.train_step_context():
            outputs = pl_module.training_step(*arguments)
    finally:
        trainer.loggers = loggers
    loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor):
        raise ValueError("training_step gave no loss")
    return loss


def _keep_quiet(*_: Any, **__: Any) -> None:
    """Log nothing."""
