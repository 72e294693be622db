"""Sequences of labels for longer sequences of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.tasks.base import MakeOptimizer, MakeSchedule, Task


class Transcription(Task):
    """Trains a model with the CTC loss (Graves et al. 2006); logs ``train/loss``, ``val/loss`` and ``val/quality``.

    The quality of a run is the share of the validation strings' labels that it gets right at their place.

    Args:
        model: Maps frames to logits ``(batch, time, labels + 1)``, the last of which is the blank.
        optimizer: As for :class:`Task`.
        schedule: As for :class:`Task`.
        zero_infinity: Whether a string that does not fit its frames counts nothing. If not, its loss is infinite.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule | None = None,
        zero_infinity: bool = True,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.zero_infinity = zero_infinity

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's loss."""
        loss = self._loss(self.model(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and quality."""
        frames, labels = batch
        logits = self.model(frames)
        read = [_collapsed(path, logits.shape[2] - 1) for path in logits.argmax(dim=2).tolist()]
        pairs = zip(read, labels.tolist(), strict=True)
        right = sum(sum(one == other for one, other in zip(a, b, strict=False)) for a, b in pairs)
        quality = right / labels.numel() if torch.isfinite(logits).all() else 0.0
        self.log_dict({"val/loss": self._loss(logits, labels), "val/quality": quality}, batch_size=len(labels))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        batch, time, outputs = logits.shape
        frames, length = (torch.full((batch,), count) for count in (time, labels.shape[1]))
        logs = logits.log_softmax(dim=2).transpose(0, 1)
        return nn.functional.ctc_loss(logs, labels, frames, length, blank=outputs - 1, zero_infinity=self.zero_infinity)


def _collapsed(path: list[int], blank: int) -> list[int]:
    """Drop repetitions, then blanks."""
    kept = [label for before, label in zip([blank, *path], path, strict=False) if label != before]
    return [label for label in kept if label != blank]
