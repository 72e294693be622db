"""Classification and regression with other losses than the usual ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule
from experiments.tasks.classifier import Classifier
from experiments.tasks.regressor import Regressor

Criterion = Callable[[Tensor, Tensor], Tensor]


def one_hot_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error of ``outputs`` against the labels as vectors of zeros and a one."""
    return nn.functional.mse_loss(outputs, nn.functional.one_hot(labels, outputs.shape[1]).float())


def naive_log_likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy as the logarithm of a softmax: infinite where a probability is 0 in 32 bits."""
    return -outputs.softmax(dim=1).gather(1, labels[:, None]).log().mean()


class CriterionClassifier(Classifier):
    """A :class:`Classifier` that is trained with another loss.

    Args:
        model: As for :class:`Classifier`.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        criterion: Maps outputs and labels to the loss.
        loss_factor: As for :class:`Classifier`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        criterion: Criterion = nn.functional.cross_entropy,
        loss_factor: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule, loss_factor)
        self.criterion = criterion

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs, labels = batch
        loss = self.loss_factor * self.criterion(self.model(inputs), labels)
        self.log("train/loss", loss)
        return loss


class CriterionRegressor(Regressor):
    """A :class:`Regressor` that is trained with another loss.

    Args:
        model: As for :class:`Regressor`.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        criterion: Maps outputs and targets to the loss.
        loss_factor: Multiplies the loss that is trained.
        target_factor: As for :class:`Regressor`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        criterion: Criterion = nn.functional.mse_loss,
        loss_factor: float = 1.0,
        target_factor: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule, target_factor)
        self.criterion = criterion
        self.loss_factor = loss_factor

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs, targets = batch
        loss = self.loss_factor * self.criterion(self.model(inputs), self.target_factor * targets)
        self.log("train/loss", loss)
        return loss
