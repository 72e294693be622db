"""Regression."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Regressor(Task):
    """Trains a model with the mean squared error; logs ``train/loss``, ``val/loss`` and ``val/quality``.

    The quality of a run is R², the share of the targets' variance that it explains.

    Args:
        model: Maps inputs to outputs of the targets' shape.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        target_factor: Multiplies the targets, as if they came in another unit.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        target_factor: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.target_factor = target_factor

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        loss = self._loss(*batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and R² of a batch; all validation data should come in one."""
        loss = self._loss(*batch)
        variance = (self.target_factor * batch[1]).var(dim=0, correction=0).mean()
        self.log_dict({"val/loss": loss, "val/quality": 1 - loss / variance}, batch_size=len(batch[0]))

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self.model(inputs)
        return nn.functional.mse_loss(outputs, self.target_factor * targets.view_as(outputs))
