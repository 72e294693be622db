"""Runs that a guard repairs, each with one remedy; the batch of a step is made from the step's number alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard
from tests.support.helpers import Poisoned, mlp

STEPS = 60


@dataclass(frozen=True)
class Repair:
    """A run and what repairs it.

    Attributes:
        remedy: What must have been applied.
        plan: The prescription.
        factors: What the loss of a step is multiplied with.
        sizes: Of the network's layers.
        activation: Between them.
        options: More arguments of the guard.
    """

    remedy: str
    plan: Mapping[str, list[Any]]
    factors: Mapping[int, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = (4, 16, 16, 2)
    activation: type[nn.Module] = nn.ReLU
    options: Mapping[str, Any] = field(default_factory=dict)

    def guard(self) -> GradientGuard:
        """A fresh guard."""
        return GradientGuard(self.plan, **self.options)

    def module(self) -> Stream:
        """A fresh module, always the same."""
        torch.manual_seed(0)
        model = mlp(*self.sizes, activation=self.activation)
        return Stream(model, _momentum, factors=dict(self.factors))


class Stream(Poisoned):
    """Makes its own batches; of several processes the last one's are poisoned."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        seed = self.trainer.world_size * self.global_step + self.global_rank
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
        step = super() if self.global_rank == self.trainer.world_size - 1 else super(Poisoned, self)
        return step.training_step([inputs, inputs[:, :2]], batch_idx)


def data() -> Any:
    """As many batches as there are steps, all alike: Lightning does not resume within a data loader."""
    return DataLoader(TensorDataset(torch.ones(STEPS, 4), torch.ones(STEPS, 2)))


def _momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


SPIKES = {38: 1e4, 39: 1e4, 44: 1e4}
NANS = {38: math.nan, 44: math.nan}
REPAIRS = {
    "clip": Repair("ClipNorm", {"exploding": ["ClipNorm"]}, SPIKES),
    "reduce": Repair("ReduceLR", {"exploding": [{"ReduceLR": 1e-3}]}, {38: 1e3, 44: 1e3}),
    "skip": Repair("SkipStep", {"nonfinite": ["SkipStep"]}, NANS),
    "rollback": Repair("Rollback", {"nonfinite": ["Rollback"]}, NANS),
    "reinitialize": Repair(
        "Reinitialize", {"vanishing": ["Reinitialize"]}, sizes=(4, *[16] * 8, 2), activation=nn.Sigmoid
    ),
    "anew": Repair(
        "Reinitialize",
        {"exploding": ["Rollback", {"Reinitialize": {"beside": True}}]},
        {8: 1e6},
        sizes=(4, *[16] * 8, 2),
        activation=nn.Tanh,
    ),
}
