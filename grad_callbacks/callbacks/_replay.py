"""Running a training step again, for the diagnosis of an alert."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grad_callbacks._utils.lightning import DummyLogger, LightningModule, Trainer
from grad_callbacks.measurement import Batch


class StepReplay:
    """Describes batches, each with a way to compute its loss again.

    There is no such way in manual optimization, whose ``training_step`` would step the optimizers, and where
    ``training_step`` fetches its batches itself.

    Args:
        trainer: Is training.
        pl_module: Is trained.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer = trainer
        self._pl_module = pl_module
        accepted = inspect.signature(pl_module.training_step).parameters
        self._is_possible = pl_module.automatic_optimization and "dataloader_iter" not in accepted
        self._is_variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in accepted.values())
        self._count = len(accepted)

    def batch(self, content: Any, index: int) -> Batch:
        """Describe the batch at ``index`` of the epoch."""
        if not self._is_possible:
            return Batch(content, index)
        arguments = (content, index) if self._is_variadic else (content, index, 0)[: self._count]
        return Batch(content, index, lambda: self._loss(arguments))

    def _loss(self, arguments: tuple[Any, ...]) -> Tensor:
        """Run ``training_step`` with nothing logged; the caller undoes what it does to the module."""
        trainer, pl_module = self._trainer, self._pl_module
        pl_module.__dict__["log"] = pl_module.__dict__["log_dict"] = _log_nothing
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


def _log_nothing(*_: Any, **__: Any) -> None:
    """Log nothing."""
