"""A classifier for Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn


class Classifier(LightningModule):
    """Trains a model with cross-entropy; logs ``train/loss``, ``val/loss`` and ``val/accuracy``.

    Args:
        model: Maps inputs to logits.
        optimizer: Makes the optimizer from the parameters.
    """

    def __init__(self, model: nn.Module, optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]) -> None:
        super().__init__()
        self.model = model
        self._make_optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.model(inputs), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy."""
        inputs, labels = batch
        logits = self.model(inputs)
        self.log("val/loss", nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val/accuracy", (logits.argmax(dim=1) == labels).float().mean(), batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return self._make_optimizer(self.parameters())
