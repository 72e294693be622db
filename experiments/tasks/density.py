"""Densities: losses that may be negative."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task
from experiments.tasks.regressor import Regressor


class Density(Task):
    """Trains a model of the inputs' density with the negative log likelihood.

    Logs ``train/loss``, ``val/loss`` and ``val/quality``. The quality of a run is what its density gains over a normal
    distribution, as a share of what the true density would gain.

    Args:
        model: Maps inputs to their log density ``(batch,)``.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        attainable: What the true density gains, in nats.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        attainable: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.attainable = attainable

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        loss: Tensor = -self.model(batch[0]).mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and quality."""
        inputs = batch[0]
        loss = -self.model(inputs).mean()
        normal = 0.5 * (torch.logdet(inputs.T.cov()) + inputs.shape[1] * (1 + math.log(2 * math.pi)))
        self.log_dict({"val/loss": loss, "val/quality": (normal - loss) / self.attainable}, batch_size=len(inputs))


class GaussianRegressor(Regressor):
    """A :class:`Regressor` that also learns how large its errors are: the loss is a negative log likelihood.

    Args:
        model: As for :class:`Regressor`.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
    """

    def __init__(self, model: nn.Module, optimizer: MakeOptimizer, schedule: MakeSchedule | None = None) -> None:
        super().__init__(model, optimizer, schedule)
        self.log_variance = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs, targets = batch
        error = nn.functional.mse_loss(self.model(inputs), targets)
        loss = 0.5 * (error * (-self.log_variance).exp() + self.log_variance)
        self.log("train/loss", loss)
        return loss
