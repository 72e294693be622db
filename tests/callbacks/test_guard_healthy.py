"""Runs that a guard leaves alone, and optimizers that it must not stumble over."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard, GradientMonitor
from tests.support.guarded_steps import spiked
from tests.support.helpers import SGD, Poisoned, Regression, fit, mlp


def test_a_healthy_run_is_bit_identical_with_and_without_the_guard() -> None:
    def weights(*callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = Regression(mlp(4, 8, 8, 2), lambda p: torch.optim.AdamW(p, lr=0.01))
        fit(module, *callbacks, max_epochs=3)
        return list(module.parameters())

    guard = GradientGuard()
    for a, b in zip(weights(), weights(guard), strict=True):
        assert torch.equal(a, b)
    assert guard.interventions == []


def test_a_trainer_that_clips_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    guard = GradientGuard()
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        steps = spiked(guard, gradient_clip_val=0.5)
    assert "the Trainer clips already, gradient_clip_val=0.5" in caplog.text
    planned = [type(remedy).__name__ for remedy in guard.prescription.remedies["exploding"]]
    assert "ClipNorm" in planned, "the next Trainer may not clip"
    assert guard.alerts == [], "what is clipped already throws no weights about"
    assert steps.norms[15] == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_zero_at_first_is_no_baseline() -> None:
    guard = GradientGuard()
    spiked(guard, dict.fromkeys(range(20), 0.0), max_epochs=2)
    assert guard.alerts == []


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_loss_that_changes_its_scale_under_adam_is_a_new_normal(scale: float) -> None:
    guard = GradientGuard()
    make = lambda p: torch.optim.Adam(p, lr=1e-3)  # noqa: E731
    fit(Poisoned(mlp(4, 8, 8, 2), make, factors=dict.fromkeys(range(40), scale)), guard, max_epochs=8)
    assert len(guard.alerts) <= 1
    assert guard.still_wrong == []


@pytest.mark.parametrize(("scale", "zero"), [(1e2, True), (1e4, False), (1e4, True)])
def test_a_regression_that_has_far_to_go_is_let_go_there(scale: float, zero: bool) -> None:
    def loss(*callbacks: Callback) -> float:
        torch.manual_seed(0)
        inputs = torch.randn(512, 8)
        targets = scale * inputs @ torch.randn(8, 1)
        module = Regression(mlp(8, 1), lambda p: SGD(p, lr=0.05))
        if zero:
            torch.nn.init.zeros_(module.model[0].weight)
        fit(module, *callbacks, data=DataLoader(TensorDataset(inputs, targets), 32), max_epochs=20)
        return float(torch.nn.functional.mse_loss(module.model(inputs), targets))

    guard = GradientGuard()
    assert loss(guard) == loss()
    assert guard.alerts == []


@pytest.mark.parametrize("lr", [None, "absent"])
def test_an_optimizer_that_finds_its_own_rate_is_watched_too(lr: str | None) -> None:
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": None} if lr is None else {"gain": 1.0})

        def step(self, closure: Any = None) -> Any:
            loss = closure()
            for p in self.param_groups[0]["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-0.01)
            return loss

    guard = GradientGuard({"exploding": ["ReduceLR"], "nonfinite": ["SkipStep"]})
    fit(Poisoned(mlp(4, 8, 8, 2), Own, factors={15: 1e5, 25: math.nan}), guard)
    assert [i.remedy for i in guard.interventions if i.alert_kind == "nonfinite"] == ["SkipStep"]
    assert {i.remedy for i in guard.interventions if i.alert_kind == "exploding"} == {"ReduceLR"}


def test_sgd_without_friction_is_watched_too() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2), lambda p: SGD(p, lr=1e-4, momentum=1.0)), monitor)
    assert len(monitor.history()) == 64
