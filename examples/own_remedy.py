"""A remedy of your own: weight decay, switched on when gradients explode. Run: python examples/own_remedy.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import Evidence, GradientGuard, OptimizerStep, Remedy


class WeightDecay(Remedy):
    """Shrinks all weights at every step by the learning rate times ``strength``, once it is switched on.

    Decoupled weight decay: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.

    Args:
        strength: Of the decay, as ``weight_decay`` of AdamW.
    """

    changes_weights = True  # so it is left out under optimizers that cannot bear it

    def __init__(self, strength: float = 0.01) -> None:
        self.strength = strength
        self._is_on = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Switch on; None if it is on already, so that the next remedy of the list is tried."""
        if self._is_on:
            return None
        self._is_on = True
        return {"strength": self.strength}

    @torch.no_grad()
    def act(self, step: OptimizerStep) -> bool:
        """Shrink the weights just before the step; called for every step, also while switched off."""
        if not self._is_on or step.is_taken or step.is_skipped:
            return False
        for weight, group in zip(step.layers.weights(), step.layers.group, strict=True):
            weight.mul_(1 - step.plan.rates[group] * self.strength)
        return True

    def release(self, step: OptimizerStep) -> bool:
        """Switch off."""
        was_on, self._is_on = self._is_on, False
        return was_on

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"is_on": self._is_on}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._is_on = state["is_on"]


class Line(LightningModule):
    """Linear regression by SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1, bias=False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def train(guard: GradientGuard) -> float:
    """Train for 400 steps and return the norm of the weights."""
    torch.manual_seed(0)
    inputs = torch.randn(3200, 8)
    inputs[:, 7] = 0.0  # this feature is always 0 ...
    targets = inputs.sum(dim=1, keepdim=True) + 0.1 * torch.randn(3200, 1)
    inputs[800:808, 7], targets[800:808] = 30.0, 30.0  # ... but in one corrupt batch, which gives it a large weight
    model = Line()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[guard], **quiet)
    trainer.fit(model, DataLoader(TensorDataset(inputs, targets), batch_size=8))
    return float(model.layer.weight.detach().norm())


if __name__ == "__main__":
    guard = GradientGuard({"exploding": [WeightDecay(0.1)]})
    watched, treated = train(GradientGuard("observe")), train(guard)
    for alert in guard.alerts:
        print(f"step {alert.step}: {alert.kind}: {alert.message}")
    for made in guard.interventions:
        print(f"step {made.step}: {made.remedy} against {made.alert_kind}: {made.detail}")
    print(f"norm of the weights: {watched:.1f} without the remedy, {treated:.1f} with it")
