"""Trainings that begin anew, and the steps that are limited after it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard
from grad_callbacks.treatment.remedies._support.short_steps import LIMITS
from tests.support.helpers import Regression, fit
from tests.support.recall import Recall, told_early


class Strides(Callback):
    """How far each step has moved the weights, relative to them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found: list[float] = []
        self.before = nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        now = nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone()
        self.found.append(float((now - self.before).norm() / self.before.norm()))
        self.before = now


@pytest.mark.numerics
@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "longest"),
    [(partial(torch.optim.SGD, lr=0.05), LIMITS.stride), (partial(torch.optim.RMSprop, lr=0.003), None)],
)
def test_a_recurrence_that_forgets_learns_after_a_new_beginning(optimizer: Any, longest: float | None) -> None:
    torch.manual_seed(0)
    inputs, targets = told_early()
    guard, strides = GradientGuard(), Strides()
    task = Regression(Recall(), optimizer)
    fit(task, guard, strides, data=DataLoader(TensorDataset(inputs, targets), batch_size=32), max_epochs=25)
    assert [made.remedy for made in guard.interventions] == ["Reinitialize"]
    assert guard.interventions[0].detail.get("stride") == longest
    assert longest is None or max(strides.found[1:]) < 1.2 * longest
    assert float((task.model(inputs).sign() == targets).float().mean()) > 0.95


@pytest.mark.numerics
@pytest.mark.slow
@pytest.mark.parametrize("prescription", ["full", "observe"])
def test_a_chaotic_recurrence_that_learns_nothing_learns_after_a_new_beginning(prescription: str) -> None:
    torch.manual_seed(2)
    (inputs, targets), task = told_early(), Regression(Recall(), partial(torch.optim.SGD, lr=0.02))
    with torch.no_grad():
        weight = nn.init.normal_(task.model.cell.weight_hh_l0)
        weight *= 1.3 / torch.linalg.eigvals(weight).abs().max()
    guard = GradientGuard(prescription)
    fit(task, guard, data=DataLoader(TensorDataset(inputs, targets), batch_size=32), max_epochs=30)
    [alert] = guard.alerts
    assert (alert.step, alert.cause) == (79, "recurrence over many steps")
    is_right = float((task.model(inputs).sign() == targets).float().mean())
    assert is_right > 0.95 if prescription == "full" else is_right < 0.6
