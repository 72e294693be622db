"""What the trials are about: a rate that somebody raises, and an alarm without a reason."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from grad_callbacks import Alert, Reading
from grad_callbacks.alerts import Kind

BROKEN = 40


class RaisedRate(Callback):
    """Somebody raises the learning rate in mid-run, for good."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == BROKEN:
            trainer.optimizers[0].param_groups[0]["lr"] *= self.factor


class Alarm:
    """A rule that alerts at some steps, whatever the gradients are."""

    kind: Kind = "exploding"
    active = False

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def judge(self, reading: Reading) -> Alert | None:
        if reading.step not in self.steps:
            return None
        return Alert(self.kind, "critical", reading.step, (), "says so", {"reference": reading.norm}, "unknown", "none")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass
