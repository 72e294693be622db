"""Densities of a target given its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task

HALF_LOG = 0.5 * math.log(2 * math.pi)


class Mixture(Task):
    """Trains a mixture density net with the negative log likelihood; logs ``train/loss`` and ``val/quality``.

    The quality of a run is what its density gains over a normal distribution, as a share of what is attainable.

    Args:
        model: Maps inputs to logits, means and log spreads.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        attainable: What a good density gains, in nats.
        stable: Whether the densities are added as logarithms. If not, one of a target far from all means is 0 in 32
            bits, and its logarithm is infinite.
        target_factor: Multiplies the targets, as if they came in another unit.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        attainable: float = 1.0,
        stable: bool = True,
        target_factor: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.attainable = attainable
        self.stable = stable
        self.target_factor = target_factor

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        loss = self._loss(*batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the quality."""
        loss = self._loss(*batch)
        normal = (self.target_factor * batch[1]).std().log() + HALF_LOG + 0.5
        self.log("val/quality", (normal - loss) / self.attainable, batch_size=len(batch[0]))

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits, means, log_spreads = self.model(inputs)
        away = (self.target_factor * targets - means) / log_spreads.exp()
        logs = logits.log_softmax(dim=1) - 0.5 * away.square() - log_spreads - HALF_LOG
        return -(torch.logsumexp(logs, dim=1) if self.stable else logs.exp().sum(dim=1).log()).mean()
