"""The callbacks that an environment variable asks for: they give way to those that the program has itself."""

from __future__ import annotations

from grad_callbacks._utils.lightning import LightningModule, Trainer
from grad_callbacks.callbacks.guard import GradientGuard
from grad_callbacks.callbacks.monitor import GradientMonitor


class _GivesWay(GradientMonitor):
    @property
    def state_key(self) -> str:
        """Another than that of the program's own callback, which may be in the same Trainer until its set-up."""
        return f"{super().state_key} of $GRAD_CALLBACKS"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave a Trainer that has a callback of this package already."""
        callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]  # of the Trainer
        if any(isinstance(each, GradientMonitor) and not isinstance(each, _GivesWay) for each in callbacks):
            # A new list: Lightning is going through the old one.
            trainer.callbacks = [each for each in callbacks if each is not self]  # type: ignore[attr-defined]
            return
        super().setup(trainer, pl_module, stage)


class EnvironmentMonitor(_GivesWay):
    """The monitor of ``GRAD_CALLBACKS=monitor``."""


class EnvironmentGuard(_GivesWay, GradientGuard):
    """The guard of ``GRAD_CALLBACKS=guard``."""
