"""A training loop without Lightning, and an engine for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from grad_callbacks import Engine, Prescription, StepResult
from tests.support.helpers import SGD, mlp

STEPS = 30


def train(
    engine: Engine, steps: int = STEPS, factors: dict[int, float] | None = None, start: int = 0, **options: Any
) -> list[StepResult]:
    """A plain loop on the same batches each time; ``factors`` multiply the loss of some steps."""
    outlooks = []
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 4, generator=generator)
        loss = nn.functional.mse_loss(engine.model(inputs), inputs[:, :2]) * (factors or {}).get(step, 1.0)
        engine.optimizer.zero_grad()
        loss.backward()
        outlooks.append(engine.before_step(loss=loss, **options))
        engine.optimizer.step()
    return [outlook for outlook in outlooks if outlook is not None]


def guarded(make: Any = SGD, plan: Any = None, **options: Any) -> Engine:
    """An engine of a small model, with an optimizer of the given options."""
    torch.manual_seed(0)
    model = mlp(4, 8, 8, 2)
    prescription = None if plan is None else Prescription(plan)
    return Engine(model, make(model.parameters(), **({"lr": 0.01} | options)), prescription=prescription)
