"""What a Lightning Trainer knows about a step that its gradients do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from grad_callbacks.engine.step_context import StepContext

# Where no process can see the gradients, and what to use in its place.
_UNSUPPORTED = {
    "DeepSpeedStrategy": "DeepSpeed keeps the gradients to itself. Train with FSDPStrategy or ModelParallelStrategy",
    "XLAFSDPStrategy": "XLA's gradients cannot be read in a step. Train with FSDPStrategy on GPUs",
    "XLAStrategy": "XLA's gradients cannot be read in a step. Train on GPUs",
}


def surroundings(
    trainer: Trainer,
    pl_module: LightningModule,
    optimizer: torch.optim.Optimizer,
    batch_idx: int,
    losses: Sequence[Tensor] = (),
) -> StepContext:
    """Describe the step that ``optimizer`` is about to take, as of ``on_before_optimizer_step``.

    Args:
        trainer: Is training.
        pl_module: Is trained.
        optimizer: One of its optimizers.
        batch_idx: The batch's place in the epoch.
        losses: What the backward passes since the last step began with, as ``on_before_backward`` was given them.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scaled = StepContext() if scaler is None else StepContext.of_scaler(scaler, optimizer)
    window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
    # Lightning divides the loss by the whole window even when the epoch ends within it.
    filled = (batch_idx + 1) % window or window
    loss = _mean_loss(losses, filled / window, getattr(scaler, "_scale", None))
    return replace(scaled, fill=filled / window, clip_at=clips_by_norm_at(trainer), loss=loss)


def _mean_loss(losses: Sequence[Tensor], fill: float, loss_scale: Tensor | None) -> Tensor | None:
    """Undo what Lightning has multiplied the losses with: the share of the window, and the loss scale."""
    scalars = [loss.detach().float().reshape(()) for loss in losses if loss.numel() == 1]
    if not scalars:
        return None
    total = scalars[0] if len(scalars) == 1 else torch.stack(scalars).sum()
    return total / fill if loss_scale is None else total / (fill * loss_scale.to(total.device))


def watched_module(trainer: Trainer, pl_module: LightningModule) -> nn.Module:
    """The module whose names and parameters count: what a strategy has wrapped, to see how it is distributed."""
    wrapped = trainer.strategy.model
    is_wrapped = _is_strategy(trainer, "FSDPStrategy") or isinstance(wrapped, nn.parallel.DistributedDataParallel)
    return cast(nn.Module, wrapped) if is_wrapped else pl_module


def clips_by_norm_at(trainer: Trainer) -> float | None:
    """The norm at which the Trainer itself clips, or None."""
    by_norm = trainer.gradient_clip_algorithm in (None, "norm")
    return float(trainer.gradient_clip_val) if trainer.gradient_clip_val and by_norm else None


def warn_of_spawning(trainer: Trainer, name: str) -> None:
    """Say that what child processes find does not come back to the script that spawned them."""
    if type(trainer.strategy.launcher).__name__ == "_MultiProcessingLauncher":
        rank_zero_warn(
            f"{name} works in the processes that the strategy spawns: after fit, alerts and history of this object are "
            "empty in the script. Read them from the logger, or use strategy='ddp'."
        )


def refuse_unsupported(trainer: Trainer, name: str) -> None:
    """Stop where gradients cannot be measured.

    Raises:
        MisconfigurationException: Under DeepSpeed and on XLA.
    """
    for strategy, reason in _UNSUPPORTED.items():
        if _is_strategy(trainer, strategy):
            raise MisconfigurationException(
                f"{name} does not work under {type(trainer.strategy).__name__}: {reason}, or remove the callback."
            )


def _is_strategy(trainer: Trainer, name: str) -> bool:
    # By name: strategies of `lightning` and of `pytorch_lightning` are different classes.
    return any(cls.__name__ == name for cls in type(trainer.strategy).__mro__)
