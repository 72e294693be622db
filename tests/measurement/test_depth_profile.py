from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grad_callbacks.measurement import About, Gauge, StepPlan
from grad_callbacks.measurement.depth_profile import decay_per_layer, early_to_late


@given(factor=st.floats(0.05, 3.0), depth=st.integers(2, 40), scale=st.floats(1e-8, 1e8))
def test_a_geometric_profile_gives_its_factor_at_any_scale(factor: float, depth: int, scale: float) -> None:
    profile = scale * factor ** np.arange(depth)[::-1].astype(float)
    assert decay_per_layer(profile) == pytest.approx(factor, rel=1e-6)


@given(outlier=st.floats(1e-6, 1e6), place=st.integers(0, 9))
def test_one_outlier_does_not_move_the_fit(outlier: float, place: int) -> None:
    profile = 0.5 ** np.arange(10)[::-1].astype(float)
    profile[place] *= outlier
    assert decay_per_layer(profile) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("profile", [[], [1.0], [0.0, 1.0], [math.nan, 2.0]])
def test_too_few_usable_layers_give_nan(profile: list[float]) -> None:
    assert math.isnan(decay_per_layer(np.array(profile)))


@pytest.mark.parametrize(
    ("profile", "expected"),
    [([1, 1, 1], 1.0), ([1e-6, 1, 1], 1e-6), ([1e-6, 1, 1, 1, 1, 1], 0.5000005), ([0, 0, 2], 0.0)],
)
def test_early_to_late(profile: list[float], expected: float) -> None:
    assert early_to_late(np.array(profile, dtype=float)) == pytest.approx(expected)


@pytest.mark.parametrize("profile", [[1.0, 1.0], [1.0, 1.0, 0.0]])
def test_early_to_late_is_nan_where_it_says_nothing(profile: list[float]) -> None:
    assert math.isnan(early_to_late(np.array(profile)))


# Mean-field theory (Schoenholz et al. 2017): the error's RMS changes by sqrt(chi_1) per layer, going back. At width 64
# single networks scatter by more than is asked here, so the median is over several.
@pytest.mark.parametrize(("width", "networks", "tolerance"), [(512, 1, 0.03), (64, 12, 0.05)])
@pytest.mark.parametrize(
    ("activation", "weight_variance", "bias_variance", "expected"),
    [
        (nn.Sigmoid, 1 / 3, 0.0, 0.1414),
        (nn.Sigmoid, 1.0, 0.0, 0.2361),
        (nn.Tanh, 1 / 3, 0.0, 0.5774),
        (nn.Tanh, 1.761, 0.05, 1.0),
        (nn.Tanh, 4.0, 0.0, 1.167),
        (nn.ReLU, 1 / 3, 0.0, 0.408),
        (nn.ReLU, 1.0, 0.0, 0.7071),
        (nn.ReLU, 2.0, 0.0, 1.0),
        (nn.ReLU, 4.0, 0.0, 1.4142),
        (nn.SELU, 1.0, 0.0, 1.0352),
    ],
)
def test_the_decay_of_the_error_agrees_with_mean_field_theory(
    activation: type[nn.Module],
    weight_variance: float,
    bias_variance: float,
    expected: float,
    width: int,
    networks: int,
    tolerance: float,
) -> None:
    decays, growths = [], []
    for seed in range(networks):
        torch.manual_seed(seed)
        model = random_network(activation, weight_variance, bias_variance, width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        gauge = Gauge(model, optimizer)
        output = model(torch.randn(8, width, dtype=torch.float64))
        output.backward(torch.randn_like(output))
        gauge.prepare()
        reading = gauge.take(StepPlan.of(optimizer, [0.0]), About(0)).reading
        gauge.close()
        decays.append(decay_per_layer(reading.error_profile[5:-5]))
        growths.append(decay_per_layer(reading.signal[::-1][5:-5]))
    assert np.median(decays) == pytest.approx(expected, rel=tolerance)
    if activation is nn.ReLU:  # the factor of the signal is the same there
        assert np.median(growths) == pytest.approx(expected, rel=tolerance)


def random_network(
    activation: type[nn.Module], weight_variance: float, bias_variance: float, width: int
) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(30):
        linear = nn.Linear(width, width, bias=bias_variance > 0, dtype=torch.float64)
        nn.init.normal_(linear.weight, std=math.sqrt(weight_variance / width))
        if bias_variance > 0:
            nn.init.normal_(linear.bias, std=math.sqrt(bias_variance))
        blocks += [linear, activation()]
    return nn.Sequential(*blocks)
