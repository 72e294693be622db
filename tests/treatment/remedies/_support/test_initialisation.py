"""Weights that let signal and error through, whatever they were before."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis.signal_flow import examine
from grad_callbacks.treatment.remedies._support.fresh_weights import start_again
from grad_callbacks.treatment.remedies._support.initialisation import initialise, spread
from grad_callbacks.treatment.remedies._support.recurrent_init import Sequences
from tests.support.helpers import mlp

ACTIVATIONS: list[type[nn.Module]] = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.LeakyReLU, nn.SiLU]


def batch(features: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, features, generator=generator), torch.randn(64, 4, generator=generator)


@settings(max_examples=20, deadline=None)
@given(
    depth=st.integers(2, 20),
    std=st.sampled_from([0.001, 0.05, 1.0]),
    bias=st.sampled_from([-5.0, 0.0, 3.0]),
    which=st.integers(0, len(ACTIVATIONS) - 1),
)
def test_it_is_well_afterwards_or_nothing_has_changed(depth: int, std: float, bias: float, which: int) -> None:
    torch.manual_seed(0)
    model = mlp(8, *[32] * depth, 4, activation=ACTIVATIONS[which])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std) if parameter.ndim > 1 else nn.init.constant_(parameter, bias)
    inputs, targets = batch()
    replay = lambda: nn.functional.mse_loss(model(inputs), targets)  # noqa: E731
    before, was = [p.detach().clone() for p in model.parameters()], spread(examine(model, replay))
    buffers = torch.get_rng_state()
    detail = initialise(model, "lsuv", replay)
    assert torch.equal(torch.get_rng_state(), buffers)
    now = spread(examine(model, replay))
    if detail is None:
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    else:
        assert now < was
        assert now < 1.5, "signal and error keep within a factor of 30 over all layers"


def test_the_same_weights_come_out_whatever_the_random_state() -> None:
    def made(seed: int) -> list[Tensor]:
        torch.manual_seed(0)
        model = mlp(8, *[16] * 8, 4, activation=nn.Sigmoid)
        torch.manual_seed(seed)
        inputs, targets = batch()
        initialise(model, "lsuv", lambda: nn.functional.mse_loss(model(inputs), targets))
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(made(1), made(2), strict=True))


def test_convolutions_recurrences_and_attention_are_initialised_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.TransformerEncoderLayer(10, 2, 16),
        nn.LSTM(10, 6, batch_first=True),
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1e-3)
    inputs = torch.randn(5, 2, 10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    detail = initialise(model, "lsuv", lambda: model(inputs)[0].square().mean())
    assert detail is not None
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"0.weight", "2.self_attn.in_proj_weight", "2.linear1.weight", "3.weight_ih_l0", "3.weight_hh_l0"} <= changed


def test_without_a_batch_the_weights_are_orthogonal() -> None:
    model = mlp(8, 8, 8, activation=nn.Tanh)
    assert initialise(model, "lsuv", None) == {"scheme": "lsuv", "measured": False}
    weight = model[0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), rtol=0, atol=1e-5)


def test_a_head_behind_sigmoids_starts_small_since_their_mean_makes_it_steep() -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 16, 16, 4, activation=nn.Sigmoid)
    inputs = torch.randn(64, 8)
    assert initialise(model, "lsuv", lambda: model(inputs).square().mean()) is not None
    outputs = model(inputs).detach()
    assert float((outputs - outputs.mean(0)).square().mean().sqrt()) == pytest.approx(0.05, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(units=st.integers(2, 9), rectifies=st.booleans(), seed=st.integers(0, 99))
def test_a_plain_recurrence_keeps_lengths_and_its_states_are_small(units: int, rectifies: bool, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.RNN(3, units, nonlinearity="relu" if rectifies else "tanh", batch_first=True)
    start_again(net, "lsuv", "", {net: Sequences(40, 5.0)})
    weight = net.weight_hh_l0.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(units), rtol=0, atol=1e-5)
    assert torch.equal(weight, torch.eye(units)) is rectifies or units < 4  # a single pair turns by nothing
    states, _ = net(5 * torch.randn(64, 40, 3))
    assert 0.05 < float(states.detach()[:, -1].square().mean().sqrt()) < 0.4


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_the_gates_of_a_cell_do_not_depend_on_its_states_at_first(cell: type[nn.RNNBase]) -> None:
    net = cell(3, 8)
    start_again(net, "lsuv", "", {net: Sequences(100)})
    gates = list(net.weight_hh_l0.detach().split(8))
    candidate = gates.pop(2)
    torch.testing.assert_close(candidate @ candidate.T, torch.eye(8), rtol=0, atol=1e-5)
    assert not any(gate.any() for gate in gates)
    spans = net.bias_ih_l0.detach().split(8)[1].exp()
    assert (float(spans[0]), float(spans[-1])) == pytest.approx((1.0, 99.0))


def test_nothing_that_comes_from_the_early_steps_is_worse_than_anything() -> None:
    net = nn.RNN(2, 8, batch_first=True)
    with torch.no_grad():
        net.weight_hh_l0.mul_(0.01)
    inputs = torch.randn(4, 150, 2)
    assert spread(examine(net, lambda: net(inputs)[0][:, -1].square().mean())) == math.inf


@pytest.mark.parametrize(("kind", "shape"), [(nn.Linear, ()), (partial(nn.Conv2d, kernel_size=1), (2, 2))])
def test_a_code_without_an_activation_behind_it_keeps_all_its_units(kind: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sizes = [16, 16, 16, 8, 16, 16, 16]
    layers = [kind(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    activations = [nn.Identity() if module.weight.shape[0] == 8 else nn.ReLU() for module in layers]
    model = nn.Sequential(*(part for pair in zip(layers, activations, strict=True) for part in pair))
    for module in layers:
        nn.init.normal_(module.weight, std=0.01)
    inputs = torch.randn(16, 16, *shape)
    assert initialise(model, "lsuv", lambda: model(inputs).square().mean())
    is_halved = [torch.allclose(m.weight[: len(m.weight) // 2], -m.weight[len(m.weight) // 2 :]) for m in layers]
    assert is_halved == [True, True, False, True, True, False]
    assert int(torch.linalg.matrix_rank(layers[2].weight.flatten(1))) == 8
