"""Running a training step again, for the diagnosis of an alert."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.lightning import DummyLogger, LightningModule, Trainer
from grad_callbacks.measurement import Batch


class StepReplay:
    """Describes batches, each with a way to compute the loss of one step again.

    In manual optimization ``training_step`` runs up to the step of the optimizer in question, and no optimizer and no
    scheduler takes a step on the way. There is no way to run it again where it fetches its batches itself.

    Args:
        trainer: Is training.
        pl_module: Is trained.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer = trainer
        self._pl_module = pl_module
        accepted = inspect.signature(pl_module.training_step).parameters
        self._is_possible = "dataloader_iter" not in accepted
        self._is_variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in accepted.values())
        self._count = len(accepted)

    def batch(self, content: Any, index: int, optimizer: torch.optim.Optimizer, steps_before: int = 0) -> Batch:
        """Describe the batch at ``index`` of the epoch.

        Args:
            content: The batch itself.
            index: Its place in the epoch.
            optimizer: Whose step is meant.
            steps_before: How many steps the optimizer has taken in this batch already, in manual optimization.
        """
        if not self._is_possible:
            return Batch(content, index)
        arguments = (content, index) if self._is_variadic else (content, index, 0)[: self._count]
        if self._pl_module.automatic_optimization:
            return Batch(content, index, lambda: self._loss(arguments))
        return Batch(content, index, lambda: self._loss_of_step(arguments, optimizer, steps_before))

    def _loss(self, arguments: tuple[Any, ...]) -> Tensor:
        """The loss that ``training_step`` returns; the caller undoes what it does to the module."""
        outputs = self._training_step(arguments)
        return _as_loss(outputs["loss"] if isinstance(outputs, Mapping) else outputs)

    def _loss_of_step(self, arguments: tuple[Any, ...], optimizer: torch.optim.Optimizer, steps_before: int) -> Tensor:
        """The sum of the losses that went backward since the step before."""
        losses: list[Tensor] = []
        left = steps_before

        def backward(loss: Tensor, *_: Any, **__: Any) -> None:
            losses.append(loss)

        def step(of: torch.optim.Optimizer, closure: Callable[[], Any] | None = None, **_: Any) -> None:
            nonlocal left
            if closure is not None:
                closure()
            if of is optimizer and left == 0:
                raise _Reached
            left -= of is optimizer
            losses.clear()

        self._pl_module.__dict__["manual_backward"] = backward
        with _no_steps(self._trainer, step):
            try:
                self._training_step(arguments)
            except _Reached:
                return _as_loss(sum(losses))
        raise ValueError("training_step did not step this optimizer")

    def _training_step(self, arguments: tuple[Any, ...]) -> Any:
        """Run ``training_step`` with nothing logged."""
        trainer, pl_module = self._trainer, self._pl_module
        pl_module.__dict__["log"] = pl_module.__dict__["log_dict"] = _do_nothing
        loggers, trainer.loggers = trainer.loggers, [DummyLogger()] if trainer.loggers else []
        try:
            with trainer.precision_plugin.train_step_context():
                return pl_module.training_step(*arguments)
        finally:
            trainer.loggers = loggers


class _Reached(Exception):  # no error: the step in question
    """The optimizer's step was reached."""


@contextmanager
def _no_steps(trainer: Trainer, step: Callable[..., None]) -> Iterator[None]:
    """Inside, ``step`` takes the place of all optimizers' steps, and schedulers do nothing."""
    stand_ins: list[tuple[Any, Callable[..., None]]] = [
        *((wrapped, partial(step, wrapped.optimizer)) for wrapped in trainer.strategy._lightning_optimizers),
        *((config.scheduler, _do_nothing) for config in trainer.lr_scheduler_configs),
    ]
    for owner, stand_in in stand_ins:
        vars(owner)["step"] = stand_in
    try:
        yield
    finally:
        for owner, _ in stand_ins:
            del vars(owner)["step"]


def _as_loss(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError("training_step gave no loss")
    return value


def _do_nothing(*_: Any, **__: Any) -> None:
    """Log nothing, schedule nothing."""
