"""One small training with one optimizer, alone or under a callback, healthy or with a fault."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.optimizers.catalogue import STEPS, Make
from grad_callbacks import GradientGuard, GradientMonitor

FAULT_AT = STEPS // 2
FAULTS = ("none", "NaN batch", "loss x 1e6", "rate x 1000")


@dataclass(frozen=True)
class Ran:
    """How a training ended.

    Attributes:
        error: What it raised; empty if it finished.
        weights: A digest of the weights.
        loss: Over all data, at the end.
        remedies: What was applied.
        outcome: What the callback says of it.
    """

    error: str
    weights: str
    loss: float
    remedies: list[str] = field(default_factory=list)
    outcome: str = ""


class Classifier(LightningModule):
    """A small classifier with convolution, normalisation and linear layers, and a fault half way."""

    def __init__(self, make: Make, fault: str) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)),
        )
        self._make, self._fault = make, fault

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss, with the fault in it."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        if self.trainer.fit_loop.epoch_loop.batch_idx == FAULT_AT:
            if self._fault == "NaN batch":
                return loss * math.nan
            if self._fault == "loss x 1e6":
                return loss * 1e6
            if self._fault == "rate x 1000":
                for group in self.trainer.optimizers[0].param_groups:
                    group["lr"] *= 1000
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return self._make(self.net)


def train(make: Make, how: str, fault: str) -> Ran:
    """Train, and say how it ended."""
    callback = {"alone": None, "monitor": GradientMonitor, "guard": GradientGuard}[how]
    callbacks: list[Any] = [] if callback is None else [callback()]
    torch.manual_seed(0)
    module, error = Classifier(make, fault), ""
    inputs, targets = _data()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        max_epochs=1,
        limit_train_batches=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(0)
    try:
        trainer.fit(module, loader)
    except Exception as raised:
        error = f"{type(raised).__name__}: {str(raised).splitlines()[0] if str(raised) else ''}"
    guard = callbacks[0] if callbacks else None
    remedies = [] if guard is None else [made.remedy for made in guard.interventions]
    return Ran(error, _digest(module), _loss(module, inputs, targets), remedies, "" if guard is None else guard.outcome)


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32 * STEPS, 16, generator=generator)
    return inputs, (inputs @ torch.randn(16, 4, generator=generator)).argmax(1)


def _digest(module: nn.Module) -> str:
    found = hashlib.sha256()
    for tensor in module.state_dict().values():
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def _loss(module: Classifier, inputs: Tensor, targets: Tensor) -> float:
    return float(nn.functional.cross_entropy(module.net(inputs), targets))
