from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from grad_callbacks.detection.diagnosis import weight_gains
from grad_callbacks.detection.diagnosis.weight_gains import error_factor, needed_gain, spectral_radii


def test_gains_of_the_usual_initialisations() -> None:
    layers = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256), nn.Conv2d(16, 32, 3))
    nn.init.kaiming_normal_(layers[1].weight, nonlinearity="relu")
    nn.init.xavier_normal_(layers[2].weight)
    assert list(weight_gains(layers).values()) == pytest.approx([3**-0.5, 2**0.5, 1.0, 3**-0.5], rel=0.03)


def test_fan_ins_of_transposed_and_grouped_convolutions() -> None:
    layers = nn.Sequential(nn.Conv1d(32, 32, 5, groups=4), nn.ConvTranspose2d(64, 16, 4))
    for layer, fan_in in zip(layers, (40, 1024), strict=True):
        nn.init.normal_(layer.weight, std=fan_in**-0.5)  # type: ignore[arg-type]
    assert list(weight_gains(layers).values()) == pytest.approx([1.0, 1.0], rel=0.05)


def test_recurrent_weights_have_a_gain_and_plain_ones_a_radius() -> None:
    model = nn.ModuleDict({"plain": nn.RNN(4, 8), "gated": nn.LSTM(4, 8)})
    nn.init.orthogonal_(model["plain"].weight_hh_l0)  # type: ignore[arg-type]
    assert list(weight_gains(model)) == ["plain.weight_hh_l0", "gated.weight_hh_l0"]
    assert spectral_radii(model) == {"plain.weight_hh_l0": pytest.approx(1.0)}
    with torch.no_grad():
        model["plain"].weight_hh_l0[0, 0] = math.nan  # type: ignore[index, operator, union-attr]
    assert spectral_radii(model) == {}


def test_a_model_without_weights_has_no_gains() -> None:
    assert weight_gains(nn.Sequential(nn.ReLU(), nn.LayerNorm(4))) == {}


@pytest.mark.parametrize(
    ("activation", "variance", "factor"),
    [  # sqrt(chi_1) in closed form or by quadrature: Schoenholz et al. 2017
        ("", 0.49, 0.7),
        ("ReLU", 1 / 3, 0.4082),
        ("ReLU", 2.0, 1.0),
        ("ReLU", 4.0, 1.4142),
        ("Sigmoid", 1 / 3, 0.1414),
        ("Sigmoid", 1.0, 0.2361),
        ("Tanh", 1 / 3, 0.5774),
        ("Tanh", 4.0, 1.167),
        ("Tanh", 64.0**2, 5.853),  # tends to (4/3 sqrt(variance / 2 pi)) ** 0.5
    ],
)
def test_the_mean_field_table(activation: str, variance: float, factor: float) -> None:
    assert error_factor(activation, math.sqrt(variance), 50) == pytest.approx(factor, rel=2e-3)


@pytest.mark.parametrize("activation", ["ReLU", "LeakyReLU", "Tanh", "SELU", ""])
def test_the_gain_that_is_needed_keeps_the_error(activation: str) -> None:
    assert error_factor(activation, needed_gain(activation), 5) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("gain", [0.0, math.inf, 1e9])
def test_gains_beyond_theory_come_back(gain: float) -> None:
    assert error_factor("Tanh", gain) == gain


def test_reading_the_gains_changes_no_computed_weight() -> None:
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert weight_gains(model) == {}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
