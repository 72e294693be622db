"""What a Lightning Trainer knows about a step that its gradients do not show."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from grad_callbacks.surroundings import Surroundings

# Where no process can see the gradients, and what to use in its place.
_UNSUPPORTED = {
    "DeepSpeedStrategy": "DeepSpeed keeps the gradients to itself. Train with FSDPStrategy or ModelParallelStrategy",
    "XLAFSDPStrategy": "XLA's gradients cannot be read in a step. Train with FSDPStrategy on GPUs",
    "XLAStrategy": "XLA's gradients cannot be read in a step. Train on GPUs",
}


def surroundings(
    trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer, batch_idx: int
) -> Surroundings:
    """Describe the step that ``optimizer`` is about to take, as of ``on_before_optimizer_step``."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scaled = Surroundings() if scaler is None else Surroundings.of_scaler(scaler, optimizer)
    window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
    # Lightning divides the loss by the whole window even when the epoch ends within it.
    filled = (batch_idx + 1) % window or window
    return replace(scaled, fill=filled / window, clip_at=clips_by_norm_at(trainer))


def watched_module(trainer: Trainer, pl_module: LightningModule) -> nn.Module:
    """The module whose names and parameters count: with FSDP the one that holds the flattened parameters."""
    return cast(nn.Module, trainer.strategy.model) if _is_strategy(trainer, "FSDPStrategy") else pl_module


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
