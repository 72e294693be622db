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
from grad_callbacks.treatment.remedies._support.post_init_steps import FIT_PLAIN, LIMITS
from tests.support.helpers import Regression, fit, mlp
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
    ("optimizer", "epochs", "longest"),
    [
        (partial(torch.optim.SGD, lr=0.05), 25, LIMITS.sgd_plain_rnn_stride),
        (partial(torch.optim.RMSprop, lr=0.003), 25, FIT_PLAIN.stride),
    ],
)
def test_a_recurrence_that_forgets_learns_by_steps_that_are_limited(
    optimizer: Any, epochs: int, longest: float
) -> None:
    torch.manual_seed(0)
    inputs, targets = told_early()
    guard, strides = GradientGuard(), Strides()
    task = Regression(Recall(), optimizer)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32)
    fit(task, guard, strides, data=loader, max_epochs=epochs)
    assert [made.remedy for made in guard.interventions] == ["Reinitialize"]
    assert guard.interventions[0].detail["stride"] == longest
    assert max(strides.found[1:12]) < 2 * longest, "a step is seen late, and its gradient may be twice the usual"
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


def test_a_deep_net_takes_no_step_that_would_undo_its_initialisation() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(320, 4)
    guard, strides = GradientGuard({"vanishing": ["Reinitialize"]}), Strides()
    task = Regression(mlp(4, *[16] * 10, 2, activation=nn.Sigmoid), partial(torch.optim.SGD, lr=100.0))
    loader = DataLoader(TensorDataset(inputs, 3 * inputs[:, :2]), batch_size=32)
    fit(task, guard, strides, data=loader, max_epochs=3)
    assert guard.interventions[0].detail["stride"] == LIMITS.sgd_stride
    assert 0.9 * LIMITS.sgd_stride < max(strides.found[1:]) < 1.2 * LIMITS.sgd_stride, "steps were clipped to that"
