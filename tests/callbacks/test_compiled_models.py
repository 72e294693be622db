"""Compiled models are measured and repaired as their originals, and compiled no more than once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from grad_callbacks import GradientGuard
from tests.support.helpers import Regression, fit, mlp


def deep(wrap: Callable[[nn.Module], nn.Module] = lambda net: net) -> Regression:
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(4, 4), nn.Sigmoid())), mlp(4, 8, 2))
    return Regression(wrap(net))


def wrapped(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="aot_eager")  # type: ignore[return-value]


def in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="aot_eager")
    return net


def whole(module: Regression) -> Regression:
    return torch.compile(module, backend="aot_eager")  # type: ignore[return-value]


@pytest.mark.parametrize("make", [lambda: deep(wrapped), lambda: deep(in_place), lambda: whole(deep())])
def test_a_compiled_model_gets_the_alert_and_the_remedy_of_its_original(make: Callable[[], Regression]) -> None:
    guards = [GradientGuard(), GradientGuard()]
    for guard, module in zip(guards, (deep(), make()), strict=True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        fit(module, guard, max_steps=30)
    plain, compiled = guards
    assert [(alert.kind, alert.step, alert.cause) for alert in plain.alerts][:1] == [
        ("vanishing", 0, "saturated activations")
    ]
    assert [(a.kind, a.step, a.cause) for a in compiled.alerts] == [(a.kind, a.step, a.cause) for a in plain.alerts]
    assert [(i.step, i.remedy) for i in compiled.interventions] == [(i.step, i.remedy) for i in plain.interventions]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 1
