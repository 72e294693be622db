"""A rule of your own: the loss no longer comes down, so the rate is lowered. Run: python examples/own_rule.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import Alert, Evidence, GradientGuard, Reading, Rule


class Plateau(Rule):
    """Raises an alert when the loss has not come down for a number of readings, though gradients arrive.

    Args:
        patience: Readings over which the mean loss is taken, and in which it has to improve.
        improvement: By what share of the best mean loss it has to come down to count.
    """

    kind = "plateau"  # a kind of its own; what it means is declared here, and nothing has to be registered
    order = 40  # in tables and legends after vanishing, exploding and non-finite
    colour = "#0e7490"
    remedies: ClassVar = {"": [{"ReduceLR": 0.1}]}  # what a GradientGuard answers it with, whatever the cause

    def __init__(self, patience: int = 100, improvement: float = 0.05) -> None:
        self.patience = patience
        self.improvement = improvement
        self._losses: list[float] = []
        self._best = math.inf
        self._since = 0  # readings since the best mean loss
        self._stuck_at: float | None = None  # mean loss at the alert, until the loss has come down

    def judge(self, reading: Reading) -> Alert | None:
        """Take in one reading; called for every one, in order."""
        if not math.isfinite(reading.loss) or not reading.is_finite or reading.norm == 0:
            return None
        self._losses = [*self._losses, reading.loss][-self.patience :]
        level = mean(self._losses)
        self._since += 1
        if self._stuck_at is not None and mean(self._losses[-20:]) < (1 - self.improvement) * self._stuck_at:
            self._stuck_at = None
        if len(self._losses) < self.patience or level < (1 - self.improvement) * self._best:
            self._best, self._since = level, 0
        if self._since < self.patience:
            return None
        self._since, self._stuck_at = 0, level  # alert again if it lasts for as long again
        message = f"the loss has stayed at {level:.3g} for {self.patience} readings; gradient norm {reading.norm:.2g}"
        evidence = Evidence({"loss": level, "norm": reading.norm})
        cause, advice = "learning rate too high", "lower the learning rate, or use a schedule"
        return Alert(self.kind, "critical", reading.step, (), message, evidence, cause, advice, reading.optimizer)

    @property
    def active(self) -> bool:
        """Whether the loss is still on the plateau: a remedy has helped once it is not."""
        return self._stuck_at is not None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"losses": self._losses, "best": self._best, "since": self._since, "stuck_at": self._stuck_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._losses, self._best = list(state["losses"]), state["best"]
        self._since, self._stuck_at = state["since"], state["stuck_at"]


class Line(LightningModule):
    """Linear regression by SGD, at a rate at which the noise of the batches keeps the weights from settling."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.08)


if __name__ == "__main__":
    torch.manual_seed(0)
    inputs = torch.randn(4000, 32)
    targets = inputs @ torch.randn(32, 1) + torch.randn(4000, 1)
    guard = GradientGuard(rules=["Exploding", "NonFinite", "Vanishing", Plateau()])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[guard], **quiet)
    trainer.fit(Line(), DataLoader(TensorDataset(inputs, targets), batch_size=8))
    for alert in guard.alerts:
        print(f"step {alert.step}: {alert.kind}: {alert.message}")
    for made in guard.interventions:
        print(f"step {made.step}: {made.remedy} against {made.alert_kind}: {made.detail}")
