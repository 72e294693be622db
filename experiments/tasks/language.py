"""Prediction of the next token."""

from __future__ import annotations

import math

from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Language(Task):
    """Trains a model with cross-entropy over all positions; logs ``train/loss``, ``val/loss`` and ``val/quality``.

    The quality of a run is ``1 - loss / log(vocabulary)``: what it knows of the next token.

    Args:
        model: Maps tokens ``(batch, time)`` to logits ``(batch, time, vocabulary)``.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        loss_factor: Multiplies the loss that is trained.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        loss_factor: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.loss_factor = loss_factor

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        loss = self.loss_factor * _loss(self.model(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and quality."""
        logits = self.model(batch[0])
        loss = _loss(logits, batch[1])
        quality = 1 - loss / math.log(logits.shape[-1])
        self.log_dict({"val/loss": loss, "val/quality": quality}, batch_size=len(batch[0]))


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
