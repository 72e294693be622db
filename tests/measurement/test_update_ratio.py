from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.measurement import Layers, StepPlan, UpdateRatios
from tests.support.helpers import mlp, read


def layer_norms(layers: Layers, tensors: list[torch.Tensor]) -> list[float]:
    """L2 norm of each layer's tensors, the long way."""
    mine = [[t for t, owner in zip(tensors, layers.owner, strict=True) if owner == i] for i in range(len(layers.names))]
    return [math.sqrt(sum(float(t.detach().square().sum()) for t in tensors)) for tensors in mine]


def bring(ratios: UpdateRatios, sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hand over the numbers, as they come with a reading."""
    ratios.arrive({name: values.numpy() for name, values in sums.items()})
    return sums


def step_with(
    optimizer_class: type[torch.optim.Optimizer], model: nn.Module, **options: float
) -> tuple[UpdateRatios, list[float], list[float]]:
    """Take one step; return the update ratios with the true norms of the layers' changes and weights."""
    optimizer = optimizer_class(model.parameters(), **options)
    layers = Layers.of(optimizer, model)
    ratios = UpdateRatios(layers)
    model(torch.ones(1, next(model.parameters()).shape[1])).square().sum().backward()
    before = [p.detach().clone() for p in layers.parameters]
    bring(ratios, ratios.before_step())
    optimizer.step()
    ratios.after_step()
    bring(ratios, ratios.collect())
    changes = [p - b for p, b in zip(layers.parameters, before, strict=True)]
    return ratios, layer_norms(layers, changes), layer_norms(layers, before)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_update_ratios_agree_with_brute_force(optimizer: type[torch.optim.Optimizer]) -> None:
    ratios, changes, norms = step_with(optimizer, mlp(5, 7, 3), lr=0.01)
    assert ratios.by_layer == pytest.approx(np.array(changes) / np.array(norms), rel=1e-4)
    assert ratios.weight_norms == pytest.approx(norms, rel=1e-5)


def test_large_parameters_are_sampled() -> None:
    ratios, [change], [norm] = step_with(torch.optim.SGD, mlp(300, 300), lr=0.01)
    assert ratios.by_layer[0] == pytest.approx(change / norm, rel=0.1)


def test_update_ratios_are_measured_at_intervals_only() -> None:
    model = mlp(2, 2)
    ratios = UpdateRatios(Layers.of(torch.optim.SGD(model.parameters(), lr=0.1), model))
    measured = []
    for _ in range(50):
        ratios.before_step()
        ratios.after_step()
        measured.append("moved" in ratios.collect())
    assert [i for i, due in enumerate(measured) if due] == [*range(20), 25]


@pytest.mark.parametrize(("momentum", "dampening", "reach"), [(0.0, 0.0, 1.0), (0.9, 0.0, 10.0), (0.9, 0.9, 1.0)])
def test_the_reach_of_an_sgd_gradient_is_its_whole_life_in_the_momentum(
    momentum: float, dampening: float, reach: float
) -> None:
    model = mlp(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, dampening=dampening)
    layers = Layers.of(optimizer, model)
    ratios = UpdateRatios(layers)
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.zero_()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    bring(ratios, ratios.before_step())
    moves, displacement = ratios.predict(read(layers).norms, None, StepPlan.of(optimizer, [0.1]))
    assert moves[0] == pytest.approx(0.1 * reach * math.sqrt(12) / 3)
    assert displacement == pytest.approx(moves[0])
    _, clipped = ratios.predict(read(layers).norms, 1.0, StepPlan.of(optimizer, [0.1]))
    assert clipped == pytest.approx(0.1 * reach / 3)


def test_weights_at_zero_are_measured_against_a_default_initialisation() -> None:
    model = nn.Linear(4, 12, bias=False)
    nn.init.zeros_(model.weight)
    model.weight.grad = torch.ones_like(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    layers = Layers.of(optimizer, model)
    ratios = UpdateRatios(layers)
    bring(ratios, ratios.before_step())
    moves, displacement = ratios.predict(read(layers).norms, None, StepPlan.of(optimizer, [0.1]))
    assert np.isnan(moves).all()
    assert displacement == pytest.approx(0.1 * math.sqrt(48) / 2)


def test_decoupled_weight_decay_is_no_part_of_the_update_ratio() -> None:
    model = mlp(4, 4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    layers = Layers.of(optimizer, model)
    ratios = UpdateRatios(layers)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    bring(ratios, ratios.before_step())
    optimizer.step()
    ratios.after_step()
    bring(ratios, ratios.collect())
    assert ratios.by_layer == pytest.approx(0.01, rel=1e-3)
    moves, displacement = ratios.predict(read(layers).norms, None, StepPlan.of(optimizer, [0.1]))
    assert moves == pytest.approx(0.0, abs=1e-5)
    assert math.isnan(displacement)
