"""Embeddings in which a class lies together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Triplet(Task):
    """Trains a model with the triplet loss (Schroff et al. 2015); logs ``train/loss`` and ``val/quality``.

    The loss of a batch whose triplets all keep the margin is exactly zero, and so is its gradient. The quality of a run
    is the share of the validation inputs whose nearest neighbour among them is of their class.

    Args:
        model: Maps inputs to embeddings.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        margin: By which another class must be farther away than the own one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        margin: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.margin = margin

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one triplet for each input, drawn from the batch."""
        inputs, labels = batch
        embedded = self.model(inputs)
        same = labels[:, None] == labels
        own = embedded[torch.multinomial(same.float(), 1).flatten()]
        other = embedded[torch.multinomial((~same).float() + 1e-9, 1).flatten()]
        loss = nn.functional.triplet_margin_loss(embedded, own, other, margin=self.margin)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the quality."""
        inputs, labels = batch
        embedded = self.model(inputs)
        distances = torch.cdist(embedded, embedded).fill_diagonal_(torch.inf)
        quality = (labels[distances.argmin(dim=1)] == labels).float().mean()
        self.log("val/quality", quality, batch_size=len(labels))
