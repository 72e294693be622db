"""The factor on the learning rate survives every scheduler, and leaves the scheduler alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as s

from grad_callbacks.treatment.step.learning_rate import LearningRate
from tests.support.helpers import mlp

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "none": lambda o: None,
    "LambdaLR": lambda o: s.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: s.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: s.StepLR(o, 3),
    "MultiStepLR": lambda o: s.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: s.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: s.LinearLR(o, 0.1, total_iters=5),
    "ExponentialLR": lambda o: s.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: s.PolynomialLR(o, 10, 2.0),
    "CosineAnnealingLR": lambda o: s.CosineAnnealingLR(o, 10, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: s.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: s.CyclicLR(o, 0.01, 0.1, 3),
    "OneCycleLR": lambda o: s.OneCycleLR(o, 0.1, total_steps=20),
    "SequentialLR": lambda o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=3), s.ExponentialLR(o, 0.9)], [3]),
    "ReduceLROnPlateau": lambda o: s.ReduceLROnPlateau(o, patience=1),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.02, anneal_epochs=5),
}


def rates(make: Callable[[Any], Any], reduce_at: int | None, steps: int = 12) -> tuple[list[float], list[float]]:
    """Learning rates as steps were taken with, and as the scheduler left them."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    scheduler = make(optimizer)
    learning_rate = LearningRate(optimizer)
    used, kept = [], []
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    for step in range(steps):
        if step == reduce_at:
            learning_rate.reduce(0.5)
        optimizer.step()
        if isinstance(scheduler, s.ReduceLROnPlateau):
            scheduler.step(1.0)
        elif scheduler is not None:
            scheduler.step()
        kept.append(optimizer.param_groups[0]["lr"])
    return used, kept


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_later_step_is_taken_at_half_the_rate_that_the_scheduler_says(name: str) -> None:
    used, kept = rates(SCHEDULERS[name], None)
    used_reduced, kept_reduced = rates(SCHEDULERS[name], 4)
    assert used_reduced == pytest.approx([rate * (0.5 if step >= 4 else 1.0) for step, rate in enumerate(used)])
    assert kept_reduced == pytest.approx(kept), "the scheduler sees its own rates"


def optimizer_with(learning_rate: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=learning_rate)  # type: ignore[arg-type]


def test_a_reduction_within_a_step_holds_for_that_step() -> None:
    optimizer = optimizer_with(0.1)
    learning_rate = LearningRate(optimizer)
    seen = []

    def closure() -> None:
        learning_rate.reduce(0.5)
        seen.append(optimizer.param_groups[0]["lr"])

    optimizer.step(closure)
    assert seen == [0.05]
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert learning_rate.effective() == [0.05]


def test_an_exception_within_a_step_loses_nothing() -> None:
    optimizer = optimizer_with(0.1)
    learning_rate = LearningRate(optimizer)
    learning_rate.reduce(0.5)

    def closure() -> None:
        raise RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            optimizer.step(closure)
    assert learning_rate.clean() == [0.1]
    learning_rate.remove()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_tensor_rate_is_changed_in_place() -> None:
    rate = torch.tensor(0.1)
    optimizer = optimizer_with(rate)
    learning_rate = LearningRate(optimizer)
    learning_rate.reduce(0.5)
    optimizer.register_step_pre_hook(lambda *_: seen.append(float(rate)))
    seen: list[float] = []
    optimizer.step()
    assert seen == pytest.approx([0.05])
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.1)


def test_once_removed_it_changes_nothing() -> None:
    optimizer = optimizer_with(0.1)
    learning_rate = LearningRate(optimizer)
    learning_rate.reduce(0.5)
    learning_rate.remove()
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    optimizer.step()
    assert seen == [0.1]


def test_a_rate_on_an_accelerator_is_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grad_callbacks.treatment.step.learning_rate.arrives_later", lambda device: True)
    model = mlp(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5))
    rate, seen = LearningRate(optimizer), []
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for _ in range(3):
        seen.append(rate.effective()[0])
        optimizer.step()
    assert math.isnan(seen[0])
    assert math.isnan(seen[1])
    assert seen[2] == 0.5
