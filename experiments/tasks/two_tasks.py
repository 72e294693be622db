"""Two tasks at once, of which one is learnt in no time."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.tasks.base import Task


class TwoTasks(Task):
    """Trains a model to tell the class and the mean of its inputs; the mean is learnt at once.

    Logs ``train/loss``, ``val/accuracy`` and ``val/quality``, the accuracy of the classes.

    Args:
        model: Maps inputs to logits and a number ``(batch, 1)``.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
    """

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of both losses."""
        inputs, labels = batch
        logits, number = self.model(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        loss = loss + nn.functional.mse_loss(number, inputs.mean(dim=1, keepdim=True))
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        accuracy = (self.model(batch[0])[0].argmax(dim=1) == batch[1]).float().mean()
        self.log_dict({"val/accuracy": accuracy, "val/quality": accuracy}, batch_size=len(batch[1]))
