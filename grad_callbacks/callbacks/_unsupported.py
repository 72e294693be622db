"""Refuse or warn of trainings that cannot be watched, or not as a user may expect."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.lightning import LightningModule, MisconfigurationException, Trainer, rank_zero_warn
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.callbacks._step_context import is_strategy


@dataclass(frozen=True)
class UnseenStepsThresholds(Thresholds):
    """When a callback says that it sees no step."""

    batches: int = threshold(
        50, "accumulation windows without a step that was seen", unit="windows", source="not measured"
    )


LIMITS = UnseenStepsThresholds()

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


class UnseenSteps:
    """Warns once if batches pass and no optimizer step is seen.

    Args:
        name: Of the callback.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._batches = 0

    def note_batch(self, trainer: Trainer, seen: int) -> None:
        """Take in a batch.

        Args:
            trainer: Trains it.
            seen: Steps seen so far, over all optimizers.
        """
        self._batches += 1
        if seen == 0 and self._batches == LIMITS.batches * trainer.accumulate_grad_batches:
            rank_zero_warn(
                f"{self._name}: {self._batches} batches have passed and no optimizer step was seen, so nothing is "
                "measured. In manual optimization only steps of `self.optimizers()` are seen, no others."
            )


def warn_without_gradients(name: str, optimizer: int, step: int) -> None:
    """Warn of a first step without gradients."""
    rank_zero_warn(
        f"{name}: no parameter of optimizer {optimizer} had a gradient at step {step}, so nothing was measured. "
        "Does the loss depend on its parameters?"
    )
