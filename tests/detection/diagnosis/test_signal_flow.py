from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis.signal_flow import examine
from tests.support.diagnosis_cases import (
    Deep,
    Recurrent,
    Residual,
    Run,
    classes,
    cross_entropy,
    he,
    squared_error,
    xavier,
)


def test_signal_and_error_of_every_layer() -> None:
    model = Deep(12, nn.ReLU, width=256)
    flow = examine(model, lambda: cross_entropy(model, classes(size=64)))
    assert flow.layers == (*(f"blocks.{i}.linear" for i in range(12)), "head")
    assert len(flow.signal) == len(flow.error) == 13
    factor = (flow.error[2] / flow.error[10]) ** (1 / 8)
    assert factor == pytest.approx(0.408, rel=0.1), "sqrt(chi_1) of torch's default and ReLU"
    assert 0.5 < flow.output_error < 1.5
    assert flow.loss == pytest.approx(cross_entropy(model, classes(size=64)).item())


def test_the_error_of_an_example_does_not_depend_on_the_batch_size() -> None:
    model = Deep(2, nn.ReLU, he)
    errors = [
        examine(model, lambda size=size: cross_entropy(model, classes(size=size))).output_error for size in (8, 256)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)


def test_a_signal_that_grows_with_the_blocks() -> None:
    model = Residual(20)
    assert examine(model, lambda: cross_entropy(model, classes())).growth > 100
    plain = Deep(20, nn.ReLU, he)
    assert examine(plain, lambda: cross_entropy(plain, classes())).growth < 10


def test_targets_are_found_in_a_squared_error() -> None:
    model = Deep(2, nn.ReLU)
    inputs, _ = classes()
    flow = examine(model, lambda: 2 * squared_error(model, (inputs, torch.full((32, 10), 500.0))))
    assert flow.target == pytest.approx(500.0)
    assert flow.output_error > 30
    assert math.isnan(examine(model, lambda: cross_entropy(model, classes())).target)


def test_the_error_through_time() -> None:
    small, large = Recurrent(radius=0.5), Recurrent(radius=3.0)
    for model, low, high in ((small, 0.0, 1e-3), (large, 0.1, math.inf)):
        through_time = examine(model, lambda model=model: cross_entropy(model, classes(time=30))).through_time
        assert low <= through_time < high


def test_no_hook_and_no_gradient_stays() -> None:
    run = Run(Deep(3, nn.Sigmoid, xavier)).stop_at(classes())
    gradients = [parameter.grad for parameter in run.model.parameters()]
    examine(run.model, run.case().replay)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())
    assert all(p.grad is gradient for p, gradient in zip(run.model.parameters(), gradients, strict=True))


def test_what_fails_leaves_the_modules_word() -> None:
    def fail() -> Tensor:
        raise RuntimeError

    flow = examine(Deep(3, nn.Sigmoid), fail)
    assert math.isnan(flow.loss)
    assert flow.structure.activation == "Sigmoid"
    assert flow.layers == ()
