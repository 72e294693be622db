"""What a Lightning Trainer knows about a step that its gradients do not show."""

from __future__ import annotations

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from grad_callbacks.engine import Surroundings

_SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")


def surroundings(
    trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer, batch_idx: int
) -> Surroundings:
    """Describe the step that ``optimizer`` is about to take, as of ``on_before_optimizer_step``."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    # A fused optimizer unscales by itself, so at this hook its gradients still carry the loss scale.
    fused = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    window = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
    return Surroundings(
        loss_scale=scaler.get_scale() if scaler is not None and fused else 1.0,
        under_scaler=scaler is not None,
        scaled_in_step=scaler is not None and fused,
        # Lightning divides the loss by the whole window even when the epoch ends within it.
        partial=(batch_idx + 1) % window != 0,
        clip_at=clips_by_norm_at(trainer),
    )


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


def refuse_sharding(trainer: Trainer, name: str) -> None:
    """Stop where gradients are sharded over processes.

    Raises:
        MisconfigurationException: Under FSDP, model parallelism or DeepSpeed.
    """
    strategy = trainer.strategy
    if any(cls.__name__ in _SHARDED for cls in type(strategy).__mro__):
        raise MisconfigurationException(
            f"{name} does not work under {type(strategy).__name__}: each process holds a part of the gradients, "
            "so norms would be wrong. Train with strategy='ddp' or on one device, or remove the callback."
        )
