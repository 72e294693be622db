"""Steps of a plain recurrence under SGD, which are limited after its initialisation."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from grad_callbacks.treatment.remedies._support.short_steps import LIMITS, ShortSteps
from tests.support.helpers import mlp, pending
from tests.support.recall import Recall

SGD = partial(torch.optim.SGD, lr=0.1)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters() if p.ndim > 1])


def begun(model: nn.Module, make: Any, inputs: torch.Tensor) -> tuple[ShortSteps, Any]:
    outputs = model(inputs)
    (outputs[0] if isinstance(outputs, tuple) else outputs).square().mean().mul(1e4).backward()
    step, steps = pending(model, make(model.parameters())), ShortSteps()
    steps.begin(step, model)
    return steps, step


def test_a_step_of_sgd_moves_a_plain_recurrence_by_no_more_than_the_stride() -> None:
    torch.manual_seed(0)
    model = Recall()
    before = weights(model)
    steps, step = begun(model, SGD, torch.randn(4, 20, 2))
    assert steps.act(step)
    SGD(model.parameters()).step()
    assert LIMITS.stride <= float((weights(model) - before).norm() / before.norm()) < 2 * LIMITS.stride


@pytest.mark.parametrize(
    ("model", "make", "inputs"),
    [
        (Recall(), partial(torch.optim.RMSprop, lr=0.1), torch.randn(4, 20, 2)),
        (nn.LSTM(2, 8), SGD, torch.randn(4, 20, 2)),
        (mlp(4, 8, 2), SGD, torch.randn(4, 4)),
    ],
    ids=["an adaptive optimizer", "gated cells", "no recurrence"],
)
def test_other_nets_and_optimizers_are_left_alone(model: nn.Module, make: Any, inputs: torch.Tensor) -> None:
    steps, step = begun(model, make, inputs)
    assert steps.stride is None
    assert steps.act(step) is False


def test_short_steps_go_on_from_a_checkpoint() -> None:
    torch.manual_seed(0)
    model = Recall()
    steps, step = begun(model, SGD, torch.randn(4, 20, 2))
    assert steps.act(step)
    resumed = ShortSteps()
    resumed.load_state_dict(json.loads(json.dumps(steps.state_dict())))
    assert resumed.state_dict() == steps.state_dict()
    norms = []
    for each in (steps, resumed):
        later = pending(model, SGD(model.parameters()))
        each.act(later)
        norms.append(float(later.norm_on_device))
    assert norms[0] == norms[1]
