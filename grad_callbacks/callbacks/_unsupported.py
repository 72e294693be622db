"""Refuse or warn of trainings that cannot be watched, or not as a user may expect."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from grad_callbacks.callbacks._step_context import is_strategy

# Strategies under which no process can see the gradients, and what to use instead.
_UNSUPPORTED = {
    "DeepSpeedStrategy": "DeepSpeed does not expose the gradients. Train with FSDPStrategy or ModelParallelStrategy",
    "XLAFSDPStrategy": "XLA's gradients cannot be read in a step. Train with FSDPStrategy on GPUs",
    "XLAStrategy": "XLA's gradients cannot be read in a step. Train on GPUs",
}


def warn_of_spawning(trainer: Trainer, name: str) -> None:
    """Warn that what spawned processes find does not come back to the script."""
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
        if is_strategy(trainer, strategy):
            raise MisconfigurationException(
                f"{name} does not work under {type(trainer.strategy).__name__}: {reason}, or remove the callback."
            )


def warn_without_parameters(pl_module: LightningModule, name: str) -> None:
    """Warn of a model that has nothing to watch."""
    if not any(parameter.requires_grad for parameter in pl_module.parameters()):
        rank_zero_warn(f"{name}: the model has no trainable parameters, there is nothing to watch.")


def warn_without_gradients(name: str, optimizer: int, step: int) -> None:
    """Warn of a first step without gradients."""
    rank_zero_warn(
        f"{name}: no parameter of optimizer {optimizer} had a gradient at step {step}, so nothing was measured. "
        "Does the loss depend on its parameters?"
    )
