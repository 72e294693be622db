"""What the trials are about: trouble in mid-run, an alarm without a reason, an optimizer with more to keep."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from grad_callbacks import Alert, Reading, Rule
from tests.support.helpers import SGD, Regression

BROKEN = 40


class RaisedRate(Callback):
    """Somebody raises the learning rate in mid-run, for good."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == BROKEN:
            trainer.optimizers[0].param_groups[0]["lr"] *= self.factor


class UndefinedTerm(Regression):
    """From a step on the loss has a term without a derivative; what it adds is zero."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        outputs = self.model(inputs)
        loss = nn.functional.mse_loss(outputs, targets)
        return loss + (0 * outputs).abs().sqrt().sum() if self.global_step >= BROKEN else loss


class Average(SGD):
    """Keeps a moving average of the weights, and counts its steps, in attributes of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.weights = [parameter for group in self.param_groups for parameter in group["params"]]
        self.ema = [weight.detach().clone() for weight in self.weights]
        self.count = [0]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        self.count[0] += 1
        for average, weight in zip(self.ema, self.weights, strict=True):
            average.lerp_(weight, 0.1)


class Alarm(Rule):
    """A rule that alerts at some steps, whatever the gradients are."""

    kind: str = "exploding"
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
