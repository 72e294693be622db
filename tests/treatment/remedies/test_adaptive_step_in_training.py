"""Trainings in which SGD takes the steps of Adam."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard
from tests.support.helpers import SGD, Regression, batches, fit, mlp


def deep_sigmoid(guard: GradientGuard) -> Regression:
    torch.manual_seed(0)
    inputs = torch.randn(320, 4)
    task = Regression(mlp(4, *[16] * 14, 2, activation=nn.Sigmoid), partial(SGD, lr=0.1))
    fit(task, guard, data=DataLoader(TensorDataset(inputs, inputs[:, :2]), batch_size=32), max_epochs=3)
    return task


def test_it_stands_beside_the_remedy_that_answers_and_both_are_recorded() -> None:
    guard = GradientGuard({"vanishing": ["Reinitialize", "AdaptiveStep"]})
    deep_sigmoid(guard)
    first, beside = guard.interventions
    assert (first.remedy, beside.remedy) == ("Reinitialize", "AdaptiveStep")
    assert (first.step, first.alert_kind) == (beside.step, beside.alert_kind)
    assert beside.detail["stride"] == pytest.approx(0.03 * 10 / 15), "15 layers, whose steps add up"
    assert beside.detail["steps"] == 29, "all but the one that the initialisation has skipped"
    assert beside.detail["outcome"] == "helped"


def test_a_rate_far_too_high_is_no_alarm_where_steps_do_not_depend_on_it() -> None:
    torch.manual_seed(0)
    guard, task = GradientGuard(), Regression(mlp(4, *[16] * 10, 2), partial(SGD, lr=100.0))
    fit(task, guard, data=batches(60))
    assert [(alert.kind, alert.step) for alert in guard.alerts] == [("vanishing", 0)]
    assert [made.remedy for made in guard.interventions] == ["Reinitialize", "AdaptiveStep"]


class Memory(nn.Module):
    """An LSTM that reads at the end what it was told at the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(2, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.cell(x)[0][:, -1])
        return outputs


@pytest.mark.numerics
def test_an_lstm_learns_by_it_at_a_rate_that_is_far_too_low() -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 2, (320, 1)) * 2.0 - 1
    inputs = torch.cat([0.1 * torch.randn(320, 80, 1), torch.zeros(320, 80, 1)], dim=2)
    inputs[:, 3, 1] = targets[:, 0]
    loader, right = DataLoader(TensorDataset(inputs, targets), batch_size=32), {}
    for beside in ([], ["AdaptiveStep"]):
        torch.manual_seed(0)
        guard = GradientGuard({"vanishing": ["Reinitialize", *beside]})
        task = Regression(Memory(), partial(SGD, lr=1e-3))
        fit(task, guard, data=loader, max_epochs=8)
        assert len(guard.interventions) == 1 + len(beside)
        right[len(beside)] = float((task.model(inputs).sign() == targets).float().mean())
    assert right[0] < 0.8
    assert right[1] > 0.95
