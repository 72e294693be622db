"""Batches that are not what they should be. A batch is a pair of inputs and targets, and is changed in place."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from experiments.faults.base import Fault


class BatchFault(Fault):
    """Changes the batch of each step with the fault, by :meth:`change`."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Change the batch before the training step sees it."""
        if self.active(trainer):
            self.change(*batch)

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Change inputs and targets in place."""
        raise NotImplementedError


class CorruptBatch(BatchFault):
    """Noise in place of the inputs, and targets that belong to other inputs, as from a damaged file.

    Args:
        step: As for :class:`Fault`.
        steps: As for :class:`Fault`.
        factor: The noise's standard deviation. Standardised inputs have 1.
    """

    def __init__(self, step: int, steps: int | None = 1, factor: float = 30.0) -> None:
        super().__init__(step, steps)
        self.factor = factor

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Draw the inputs anew and mix the targets."""
        inputs.normal_(std=self.factor)
        targets.copy_(targets[torch.randperm(len(targets))])


class BadValue(BatchFault):
    """A value in the inputs that no number should be: NaN, infinity, or a missing entry coded as a number.

    Args:
        step: As for :class:`Fault`.
        value: What is written into the inputs.
        steps: As for :class:`Fault`.
        rows: Into how many of the batch's inputs, all features of each.
    """

    def __init__(self, step: int, value: float, steps: int | None = 1, rows: int = 1) -> None:
        super().__init__(step, steps)
        self.value = value
        self.rows = rows

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Overwrite the first rows of the inputs."""
        inputs[: self.rows] = self.value


class BadTarget(BatchFault):
    """A missing target coded as a number, such as -9999.

    Args:
        step: As for :class:`Fault`.
        value: What is written into the targets.
        steps: As for :class:`Fault`.
        rows: Into how many of the batch's targets.
    """

    def __init__(self, step: int, value: float, steps: int | None = 1, rows: int = 1) -> None:
        super().__init__(step, steps)
        self.value = value
        self.rows = rows

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Overwrite the first rows of the targets."""
        targets[: self.rows] = self.value


class ScaledInputs(BatchFault):
    """Inputs in another unit, as when their standardisation is forgotten.

    Args:
        step: As for :class:`Fault`.
        steps: As for :class:`Fault`.
        factor: Multiplies the inputs.
    """

    def __init__(self, step: int, steps: int | None = None, factor: float = 100.0) -> None:
        super().__init__(step, steps)
        self.factor = factor

    def change(self, inputs: Tensor, targets: Tensor) -> None:
        """Multiply the inputs."""
        inputs.mul_(self.factor)
