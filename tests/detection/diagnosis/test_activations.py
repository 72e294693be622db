from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from grad_callbacks.detection.diagnosis import ActivationProbe
from grad_callbacks.detection.diagnosis.activations import activity_of
from tests.support.diagnosis_cases import Deep, xavier


def measure(model: nn.Module, inputs: torch.Tensor) -> ActivationProbe:
    probe = ActivationProbe(model)
    probe.attach()
    model(inputs)
    probe.detach()
    return probe


@pytest.mark.parametrize(
    ("kind", "module", "inputs", "saturated", "slope"),
    [
        ("Sigmoid", nn.Sigmoid(), [[0.0, 9.0, -9.0, 0.0]], 0.5, 0.25 / math.sqrt(2)),
        ("Tanh", nn.Tanh(), [[0.0, 0.0, 0.0, 5.0]], 0.25, math.sqrt(3 / 4)),
        ("Hardtanh", nn.Hardtanh(), [[0.5, 2.0, -2.0, 3.0]], 0.75, 0.5),
        ("Hardsigmoid", nn.Hardsigmoid(), [[0.5, 4.0, -4.0, 0.0]], 0.5, 1 / 6 / math.sqrt(2)),
        ("Softsign", nn.Softsign(), [[0.0, 99.0, 0.0, -99.0]], 0.5, 1 / math.sqrt(2)),
    ],
)
def test_saturation_is_measured_by_the_slope(
    kind: str, module: nn.Module, inputs: Any, saturated: float, slope: float
) -> None:
    found = activity_of(kind, module(torch.tensor(inputs)))
    assert found[0] == pytest.approx(saturated)
    assert found[1] == pytest.approx(slope, rel=1e-2)
    assert math.isnan(found[2])


@pytest.mark.parametrize("shape", [(8, 4), (8, 3, 4), (8, 4, 5, 5)])
def test_a_unit_is_dead_that_no_input_activates(shape: tuple[int, ...]) -> None:
    values = torch.ones(shape)
    values.movedim(1 if len(shape) == 4 else -1, 0)[:3] = -1
    assert activity_of("ReLU", values.relu())[2] == pytest.approx(0.75)
    values.view(-1)[0] = 1.0
    assert activity_of("ReLU", values.relu())[2] == pytest.approx(0.5)


def test_the_probe_names_modules_in_the_order_of_execution() -> None:
    model = Deep(3, nn.Tanh, xavier)
    probe = measure(model, torch.randn(8, 16))
    assert list(probe.read()) == [f"blocks.{i}.activation" for i in range(3)]
    assert probe.read()["blocks.0.activation"].kind == "Tanh"


def test_no_hook_stays_and_none_is_put_twice() -> None:
    model = Deep(2, nn.ReLU)
    probe = ActivationProbe(model)
    probe.attach()
    probe.attach()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert max(hooks) == 1
    probe.detach()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert probe.read() == {}


@pytest.mark.parametrize(
    ("function", "kind"), [(torch.sigmoid, "Sigmoid"), (torch.relu, "ReLU"), (lambda x: torch.tanh(5 * x), "Tanh")]
)
def test_functions_are_guessed_from_what_enters_the_next_layer(function: Any, kind: str) -> None:
    found = measure(Deep(3, function, xavier), torch.randn(32, 16)).read()
    assert list(found) == ["blocks.1.linear", "blocks.2.linear", "head"]
    assert {activity.kind for activity in found.values()} == {kind}


def test_what_no_activation_made_is_not_guessed_at() -> None:
    assert measure(Deep(3, torch.clone), torch.randn(32, 16)).read() == {}
