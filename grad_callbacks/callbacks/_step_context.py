"""What a Lightning Trainer knows about a step that its gradients do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from grad_callbacks._utils.lightning import LightningModule, Trainer
from grad_callbacks.callbacks._replay import StepReplay
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.measurement import Batch


class StepInputs:
    """Collects the batch and the losses of a step until its optimizer steps.

    Args:
        replay: Runs batches again; None if nobody asks for that.
    """

    def __init__(self, replay: StepReplay | None = None) -> None:
        self._replay = replay
        self._batch: Any = None
        self._batch_idx = 0
        self._steps: list[torch.optim.Optimizer] = []  # taken in this batch
        self._losses: list[Tensor] = []  # of the backward passes since the last step
        self._has_stepped = False

    def note_batch(self, batch: Any, batch_idx: int) -> None:
        """Keep the batch, and its place in the epoch, which shows a short accumulation window."""
        self._batch, self._batch_idx = batch, batch_idx
        self._steps.clear()

    def note_loss(self, loss: Tensor) -> None:
        """Keep a loss as ``on_before_backward`` is given it."""
        if self._has_stepped:
            self._has_stepped = False
            self._losses.clear()
        self._losses.append(loss.detach())

    def context(self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer) -> StepContext:
        """Describe the step that ``optimizer`` is about to take, as of ``on_before_optimizer_step``."""
        self._has_stepped = True
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        # Lightning divides the loss by the whole window even when the epoch ends within it.
        filled = (self._batch_idx + 1) % window or window
        loss = _mean_loss(self._losses, filled / window, getattr(scaler, "_scale", None))
        clip_at, batch = clips_by_norm_at(trainer), self._described(optimizer)
        if scaler is None:
            return StepContext(fill=filled / window, clip_at=clip_at, loss=loss, batch=batch)
        scaled = StepContext.of_scaler(scaler, optimizer)
        return replace(scaled, fill=filled / window, clip_at=clip_at, loss=loss, batch=batch)

    def _described(self, optimizer: torch.optim.Optimizer) -> Batch:
        steps_before = sum(earlier is optimizer for earlier in self._steps)
        self._steps.append(optimizer)
        if self._replay is None:
            return Batch()
        return self._replay.batch(self._batch, self._batch_idx, optimizer, steps_before)


def _mean_loss(losses: Sequence[Tensor], fill: float, loss_scale: Tensor | None) -> Tensor | None:
    """Undo what Lightning has multiplied the losses with: the share of the window, and the loss scale."""
    scalars = [_scalar(loss) for loss in losses if loss.numel() == 1]
    if not scalars:
        return None
    total = scalars[0] if len(scalars) == 1 else torch.stack(scalars).sum()
    if fill == 1 and loss_scale is None:
        return total
    return total / fill if loss_scale is None else total / (fill * loss_scale.to(total.device))


def _scalar(loss: Tensor) -> Tensor:
    if loss.ndim == 0 and loss.dtype == torch.float32 and not loss.requires_grad:
        return loss  # nearly always
    return loss.detach().float().reshape(())


def watched_module(trainer: Trainer, pl_module: LightningModule) -> nn.Module:
    """The module whose names and parameters count: what a strategy has wrapped, to see how it is distributed."""
    wrapped = trainer.strategy.model
    is_wrapped = is_strategy(trainer, "FSDPStrategy") or isinstance(wrapped, nn.parallel.DistributedDataParallel)
    return cast(nn.Module, wrapped) if is_wrapped else pl_module


def clips_by_norm_at(trainer: Trainer) -> float | None:
    """The norm at which the Trainer itself clips, or None."""
    by_norm = trainer.gradient_clip_algorithm in (None, "norm")
    return float(trainer.gradient_clip_val) if trainer.gradient_clip_val and by_norm else None


def is_strategy(trainer: Trainer, name: str) -> bool:
    """True for a strategy of that class; by name, since those of `pytorch_lightning` are other classes."""
    return any(cls.__name__ == name for cls in type(trainer.strategy).__mro__)
