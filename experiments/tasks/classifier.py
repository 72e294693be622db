"""Classification."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Classifier(Task):
    """Trains a model with cross-entropy; logs ``train/loss``, ``val/loss``, ``val/accuracy`` and ``val/quality``.

    The quality of a run is its accuracy.

    Args:
        model: Maps inputs to logits.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        loss_factor: Multiplies the loss that is trained, as a careless reduction does.
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
        inputs, labels = batch
        loss = self.loss_factor * nn.functional.cross_entropy(self.model(inputs), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy."""
        inputs, labels = batch
        logits = self.model(inputs)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("val/loss", nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.log_dict({"val/accuracy": accuracy, "val/quality": accuracy}, batch_size=len(labels))
