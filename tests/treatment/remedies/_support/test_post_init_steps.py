"""Steps that are fitted to a recurrence after its initialisation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from grad_callbacks.treatment.remedies._support.post_init_steps import FIT_GATED, FIT_PLAIN, FittedSteps
from tests.support.helpers import pending
from tests.support.recall import Recall


def test_a_rate_is_fitted_once_to_what_was_measured_once() -> None:
    model = Recall()
    model(torch.randn(4, 20, 2)).square().mean().backward()
    step, steps = pending(model, torch.optim.RMSprop(model.parameters(), lr=0.01)), FittedSteps()
    steps.begin(step, model)
    steps.act(step)
    before = step.learning_rate.scale
    for _ in range(10):
        steps.note(replace(step.reading, moved=4 * FIT_PLAIN.stride))
        steps.act(step)
    assert step.learning_rate.scale == pytest.approx(before / 4)


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM])
def test_a_large_gradient_leads_no_optimizer_of_a_recurrence_astray(cell: type[nn.RNNBase]) -> None:
    model, outliers = cell(2, 8), {3, 11, 12}
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    steps, sizes = FittedSteps(), []
    for number in range(20):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e6 if number in outliers else 1.0)
        step = pending(model, optimizer)
        if number == 0:
            steps.begin(step, model)
        steps.note(step.reading)
        steps.act(step)
        sizes.append(float(next(model.parameters()).grad.max()))  # type: ignore[union-attr]
    assert sizes == [pytest.approx(2.0 if number in outliers else 1.0) for number in range(20)]


def strides(cell: nn.Module, rates: Iterable[float], per_rate: float, cut_at: int = -1) -> list[float]:
    """Return how far the steps at these rates of the user's move a net whose motion is ``per_rate`` of its rate.

    Another remedy lowers the rate to a tenth at step ``cut_at``.
    """
    cell(torch.randn(4, 20, 2))[0].square().mean().backward()
    optimizer = torch.optim.RMSprop(cell.parameters())
    step, steps, found = pending(cell, optimizer), FittedSteps(), []
    steps.begin(step, cell)
    for number, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        if number == cut_at:
            step.learning_rate.reduce(0.1)
        steps.act(step)
        found.append(per_rate * step.learning_rate.effective()[0])
        steps.note(replace(step.reading, moved=found[-1]))
    return found


@pytest.mark.parametrize("cell", [nn.LSTM(2, 8), nn.GRU(2, 8)])
@pytest.mark.parametrize("per_rate", [0.2, 3.0, 100.0], ids=["too slow", "about right", "too fast"])
def test_steps_of_gated_cells_are_fitted_from_both_sides(cell: nn.Module, per_rate: float) -> None:
    assert strides(cell, [0.01] * 40, per_rate)[-1] == pytest.approx(FIT_GATED.stride)


def test_a_rate_does_not_rise_without_end() -> None:
    assert strides(nn.GRU(2, 8), [0.01] * 60, 1e-4)[-1] == pytest.approx(FIT_GATED.most * 0.01 * 1e-4)


def test_a_plain_recurrence_never_gets_more_than_the_users_rate() -> None:
    assert max(strides(nn.RNN(2, 8), [0.01] * 60, 0.2)) == pytest.approx(0.01 * 0.2)


def test_a_schedule_still_counts_where_the_rate_is_fitted() -> None:
    schedule = [0.01] * 40 + [0.001] * 40
    assert strides(nn.LSTM(2, 8), schedule, 0.2)[-1] == pytest.approx(FIT_GATED.stride / 10)


@pytest.mark.parametrize("cell", [nn.LSTM(2, 8), nn.RNN(2, 8)])
def test_a_rate_that_another_remedy_has_lowered_is_not_raised_again(cell: nn.Module) -> None:
    found = strides(cell, [0.01] * 80, 10.0, cut_at=40)
    assert found[-1] == pytest.approx(found[39] / 10)


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.RMSprop, lr=0.01)])
def test_fitted_steps_go_on_from_a_checkpoint(make: Any) -> None:
    torch.manual_seed(0)
    model = Recall()
    model(torch.randn(4, 20, 2)).square().mean().backward()
    optimizer = make(model.parameters())
    steps, resumed = FittedSteps(), FittedSteps()
    step = pending(model, optimizer)
    steps.begin(step, model)
    assert steps.act(step)
    resumed.load_state_dict(json.loads(json.dumps(steps.state_dict())))
    later = [(each, pending(model, optimizer)) for each in (steps, resumed)]
    for each, step in later:
        each.note(replace(step.reading, moved=0.001))
        each.act(step)
    (_, one), (_, other) = later
    assert one.norm == other.norm
    assert json.dumps(steps.state_dict()) == json.dumps(resumed.state_dict()), "NaN too"
