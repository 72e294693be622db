"""SGD on raw inputs takes the steps that it would take on standardised ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks.treatment.remedies._support.raw_inputs import (
    begin_standardised,
    raw_inputs,
    standardised_gradients,
)
from tests.support.helpers import SGD, Regression, fit, mlp

MEANS = torch.tensor([5.0, -120.0, 1500.0, 0.2])
SCALES = torch.tensor([3.0, 2.0, 900.0, 0.05])


class Last(nn.Module):
    """A recurrent net that reads out its last state."""

    def __init__(self, bidirectional: bool = False) -> None:
        super().__init__()
        self.cells = nn.GRU(4, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(8 * (1 + bidirectional), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])  # type: ignore[no-any-return]


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(40, 2))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("make", "shape", "is_centred"),
    [
        (lambda: mlp(4, 8, 2), (32, 4), True),
        (lambda: nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 2)), (32, 4), False),
        (Last, (32, 5, 4), True),
        (lambda: Last(bidirectional=True), (32, 5, 4), True),
        (convolution, (32, 4, 5), False),
    ],
)
def test_the_steps_are_those_on_standardised_inputs(
    make: Callable[[], nn.Module], shape: tuple[int, ...], is_centred: bool, momentum: float
) -> None:
    torch.manual_seed(0)
    on_raw = make().double()
    on_standard = copy.deepcopy(on_raw)
    by_channel = (4, 1) if isinstance(on_raw, nn.Sequential) and isinstance(on_raw[0], nn.Conv1d) else (4,)
    means, scales = MEANS.double().reshape(by_channel), SCALES.double().reshape(by_channel)
    raw, targets = means + scales * torch.randn(shape).double(), torch.randn(32, 2).double()

    found = raw_inputs(on_raw, [raw, targets], lambda: on_raw(raw).sum())
    reverse = isinstance(on_raw, Last) and on_raw.cells.bidirectional
    assert len(found) == 1 + reverse, "only the layer that takes the batch in"
    shift, scale = (torch.tensor(each).double().reshape(by_channel) for each in (found[0].mean, found[0].scale))
    assert bool(shift.abs().sum()) is is_centred
    standard = (raw - shift) / scale

    begin_standardised(on_raw, found)
    optimizers = [SGD(model.parameters(), lr=0.05, momentum=momentum) for model in (on_raw, on_standard)]
    for _ in range(20):
        losses = []
        for model, inputs, optimizer in zip((on_raw, on_standard), (raw, standard), optimizers, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            losses.append(float(loss.detach()))
            named = dict(model.named_parameters())
            for entry in found if model is on_raw else []:
                weight, bias = named[entry.weight], named.get(entry.bias or "")
                new = standardised_gradients(entry, weight.grad, None if bias is None else bias.grad)  # type: ignore[arg-type]
                weight.grad = new[0]
                if bias is not None:
                    bias.grad = new[1]
            optimizer.step()
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_layer_that_takes_something_else_too_is_left_alone() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    batch = torch.randn(8, 4)
    assert raw_inputs(model, batch, lambda: model(batch).sum()) == []


def test_features_that_are_constant_keep_their_weights_finite() -> None:
    model = nn.Linear(3, 1)
    batch = torch.randn(8, 3) * torch.tensor([1.0, 0.0, 0.0]) + torch.tensor([0.0, 0.0, 7.0])
    [entry] = raw_inputs(model, batch, lambda: model(batch).sum())
    assert entry.scale[1:] == (1.0, 7.0)
    begin_standardised(model, [entry])
    assert torch.isfinite(model.weight).all()


def houses(raw: bool) -> tuple[DataLoader[Any], Tensor, Tensor]:
    """Features in raw units, and a target that is linear in the standardised ones."""
    torch.manual_seed(1)
    standard = torch.randn(1200, 4)
    targets = standard @ torch.tensor([[0.8], [-0.4], [0.3], [0.1]]) + 0.2 * torch.randn(1200, 1)
    inputs = MEANS + SCALES * standard if raw else standard
    train = TensorDataset(inputs[:1000], targets[:1000])
    return DataLoader(train, 25, shuffle=True), inputs[1000:], targets[1000:]


def explained(module: Regression, callback: GradientMonitor, raw: bool = True) -> float:
    """Train, and return the share of the targets' variance that is explained."""
    loader, inputs, targets = houses(raw)
    fit(module, callback, data=loader, max_epochs=5)
    with torch.no_grad():
        return 1 - float((module.model(inputs) - targets).square().mean() / targets.var())


@pytest.mark.numerics
@pytest.mark.parametrize("sizes", [(4, 1), (4, 16, 1)])
def test_raw_features_are_learned_as_standardised_ones_are(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    guard, model = GradientGuard(), mlp(*sizes)
    fixed = explained(Regression(copy.deepcopy(model), lambda p: SGD(p, lr=0.02)), GradientMonitor(), raw=False)
    assert fixed > 0.9
    assert explained(Regression(model, lambda p: SGD(p, lr=0.02)), guard) > fixed - 0.03
    assert [entry.remedy for entry in guard.interventions] == ["StandardizeInputs"]
    assert guard.alerts[0].cause == "inputs too large"
    assert guard.outcome in ("repaired", "partly repaired"), "the loss alone does not always tell"


def test_under_an_adaptive_optimizer_it_is_never_switched_on() -> None:
    torch.manual_seed(0)
    guard = GradientGuard()
    explained(Regression(mlp(4, 1), lambda p: torch.optim.Adam(p, lr=0.02)), guard)
    assert "StandardizeInputs" not in [entry.remedy for entry in guard.interventions]
