"""Operations that are undefined, or have no derivative, for some of the values that reach them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from experiments.faults.base import Fault

Term = Callable[[Tensor], Tensor]


def log_of_zero(outputs: Tensor) -> Tensor:
    """Mean log-distance between all pairs of rows, each with itself too: the log of 0."""
    return _squared_distances(outputs).log().mean()


def root_of_zero(outputs: Tensor) -> Tensor:
    """Mean distance between all pairs of rows, each with itself too: 0, but there the root has no derivative."""
    return _squared_distances(outputs).sqrt().mean()


def mean_of_nothing(outputs: Tensor) -> Tensor:
    """Mean over the rows that a mask leaves, which are none: 0 / 0."""
    mask = torch.zeros_like(outputs)
    return (mask * outputs).sum() / mask.sum()


def _squared_distances(outputs: Tensor) -> Tensor:
    rows = outputs.flatten(1)
    return (rows[:, None] - rows[None]).square().sum(dim=2)


class BrokenLoss(Fault):
    """Adds a term of the model's outputs to the loss.

    Args:
        step: As for :class:`Fault`.
        term: Maps the outputs to a number.
        steps: As for :class:`Fault`.
        weight: Multiplies the term.
    """

    def __init__(self, step: int, term: Term, steps: int | None = None, weight: float = 0.1) -> None:
        super().__init__(step, steps)
        self.term = term
        self.weight = weight

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the term around the module's training step."""
        training_step, model = pl_module.training_step, pl_module.model
        outputs: list[Tensor] = []
        model.register_forward_hook(lambda module, arguments, output: outputs.append(output))

        def broken_step(*arguments: Any, **named: Any) -> Any:
            outputs.clear()
            loss = training_step(*arguments, **named)
            return loss + self.weight * self.term(outputs[-1]) if self.active(trainer) else loss

        pl_module.training_step = broken_step  # type: ignore[method-assign]


class BrokenModule(Fault):
    """Puts an operation behind a module, in training only.

    Args:
        step: As for :class:`Fault`.
        module: Its name in the task, such as ``model.blocks.2``.
        operation: Maps the module's output to what the next one gets instead.
        steps: As for :class:`Fault`.
    """

    def __init__(self, step: int, module: str, operation: Term, steps: int | None = None) -> None:
        super().__init__(step, steps)
        self.module = module
        self.operation = operation

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the operation."""

        def broken(module: torch.nn.Module, arguments: Any, output: Tensor) -> Tensor:
            return self.operation(output) if module.training and self.active(trainer) else output

        pl_module.get_submodule(self.module).register_forward_hook(broken)
