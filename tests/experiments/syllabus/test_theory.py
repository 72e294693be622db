"""Mean-field theory against its closed forms, the literature's table, and wide nets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from experiments import inits
from experiments.models import MLP
from experiments.syllabus.profile import Profile, decay, predicted
from experiments.syllabus.theory import Layer, factor, factors, moments

# Activation, sigma_w squared, sigma_b squared, the factor: from "Ground truth for the decay factor".
TABLE = [
    (nn.Sigmoid(), 1 / 3, 0.0, 0.1414),
    (nn.Sigmoid(), 1.0, 0.0, 0.2361),
    (nn.Tanh(), 1 / 3, 0.0, 0.5774),
    (nn.Tanh(), 1.761, 0.05, 1.000),
    (nn.Tanh(), 4.0, 0.0, 1.167),
    (nn.ReLU(), 1 / 3, 0.0, 0.408),
    (nn.ReLU(), 1.0, 0.0, 0.707),
    (nn.ReLU(), 2.0, 0.0, 1.0),
    (nn.ReLU(), 4.0, 0.0, 1.414),
    (nn.SELU(), 1.0, 0.0, 1.0352),
]


@pytest.mark.parametrize(("activation", "weights", "biases", "expected"), TABLE)
def test_the_table_of_the_literature(activation: nn.Module, weights: float, biases: float, expected: float) -> None:
    assert factor(activation, Layer(weights, biases)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("slope", [0.01, 0.25])
def test_leaky_relu_has_its_closed_form(slope: float) -> None:
    found = factor(nn.LeakyReLU(slope), Layer(1.7))
    assert found == pytest.approx(math.sqrt(1.7 * (1 + slope**2) / 2), rel=1e-4)


def test_a_linear_net_multiplies_by_its_deviation_at_every_layer() -> None:
    assert factors(nn.Identity(), [Layer(0.01)] * 4, inputs=3.0) == pytest.approx([0.1] * 3, rel=1e-6)


def test_a_mean_far_from_zero_saturates_tanh() -> None:
    square, slope = moments(nn.Tanh(), length=0.01, mean=6.0)
    assert square == pytest.approx(1.0, abs=1e-4)
    assert slope < 1e-8


@pytest.mark.parametrize(
    ("activation", "init"), [(nn.Sigmoid, inits.xavier), (nn.Tanh, inits.default), (nn.ReLU, inits.he)]
)
def test_it_says_what_a_net_of_the_syllabus_does(activation: type[nn.Module], init: object) -> None:
    torch.manual_seed(0)
    model = MLP(64, 10, depth=20, width=256, activation=activation, norm=nn.Identity, init=init)  # type: ignore[arg-type]
    inputs = torch.randn(64, 64)
    found = Profile(model, inputs, torch.randint(0, 10, (64,)))
    assert found.decay == pytest.approx(predicted(model, inputs), rel=0.05)


def test_where_there_is_no_theory_there_is_no_number() -> None:
    made = {"in_features": 4, "out_features": 2, "depth": 3, "width": 8, "activation": nn.ReLU, "init": inits.he}
    assert math.isnan(predicted(MLP(norm=nn.BatchNorm1d, **made), torch.randn(5, 4)))  # type: ignore[arg-type]
    assert math.isnan(predicted(MLP(norm=nn.Identity, residual=True, **made), torch.randn(5, 4)))  # type: ignore[arg-type]


def test_the_fit_leaves_out_both_ends_and_tells_zero_from_nothing() -> None:
    errors = [1e9, 1e9, *(2.0**place for place in range(8)), 1e9, 1e9]
    assert decay(errors) == pytest.approx(0.5)
    assert decay([1.0, 0.0, 1.0]) == 0.0
    assert math.isnan(decay([1.0]))
    assert math.isnan(decay([1.0, math.inf, 1.0]))
