"""The error by depth, in nets whose product is known."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from experiments import inits
from experiments.models import MLP, Convolutional, Recurrent, ResidualConvolutional, ResidualMLP, Transformer
from experiments.syllabus.profile import Profile


def chain(gain: float) -> MLP:
    init = partial(inits.orthogonal, gain=gain)
    return MLP(64, 10, depth=51, width=64, activation=nn.Identity, norm=nn.Identity, init=init)


@pytest.mark.parametrize(("gain", "product"), [(0.1, 1e-50), (10.0, 1e50)])
def test_the_products_of_the_text_over_fifty_layers(gain: float, product: float) -> None:
    torch.manual_seed(0)
    found = Profile(chain(gain), torch.randn(16, 64), torch.randint(0, 10, (16,)))
    assert found.ratio == pytest.approx(product, rel=1e-4)
    assert found.decay == pytest.approx(gain, rel=1e-4)
    assert len(found.errors) == 51


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_recurrent_net_is_measured_at_every_step(cell: str) -> None:
    model = Recurrent(6, 4, cell, hidden=8, recurrent_init="orthogonal")
    found = Profile(model, torch.randn(5, 12, 6), torch.randint(0, 4, (5,)))
    assert len(found.errors) == 12
    assert min(found.errors) > 0


@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_the_last_states_error_is_what_the_head_gives_it(cell: str) -> None:
    torch.manual_seed(0)
    model = Recurrent(6, 4, cell, hidden=8).double()
    inputs, targets = torch.randn(5, 12, 6).double(), torch.randint(0, 4, (5,))
    last = model.cell(inputs)[0][:, -1].detach().requires_grad_()
    nn.functional.cross_entropy(model.head(last), targets).backward()
    assert last.grad is not None
    assert Profile(model, inputs, targets).errors[-1] == pytest.approx(float(last.grad.square().mean().sqrt()))


def test_a_small_radius_forgets_and_a_large_one_explodes() -> None:
    def ratio(radius: float) -> float:
        torch.manual_seed(0)
        model = Recurrent(6, 4, "tanh", hidden=50, recurrent_init="gaussian", spectral_radius=radius)
        for name, parameter in model.cell.named_parameters():
            if "weight_ih" in name:
                nn.init.zeros_(parameter)  # states stay small, where tanh is linear
        return Profile(model, torch.randn(5, 30, 6), torch.randint(0, 4, (5,))).ratio

    assert ratio(0.5) < 1e-6
    assert ratio(1.2) > 1e-2


@pytest.mark.parametrize(
    ("model", "stations"),
    [
        (Convolutional(64, 10, depth=3, channels=4, activation=nn.ReLU, init=inits.he), 3),
        (ResidualMLP(64, 10, blocks=5, width=8, activation=nn.ReLU, norm=nn.Identity, init=inits.he), 5),
        (ResidualConvolutional(64, 10, blocks=2, channels=4, activation=nn.ReLU, init=inits.he), 2),
    ],
)
def test_every_kind_of_net_has_its_stations(model: nn.Module, stations: int) -> None:
    found = Profile(model, torch.randn(8, 64), torch.randint(0, 10, (8,)))
    assert len(found.errors) == stations
    assert min(found.errors) > 0
    assert found.weight_ratio > 0
    assert all(parameter.grad is None for parameter in model.parameters()), "the model itself is not touched"


def test_a_transformer_is_measured_at_its_layers() -> None:
    made = Transformer(20, 20, 8, depth=3, width=8, heads=2, activation=nn.GELU, init=inits.default)
    tokens = torch.randint(0, 20, (4, 8))
    assert len(Profile(made, tokens, tokens).errors) == 3


def test_a_net_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="does not know where to measure in Linear"):
        Profile(nn.Linear(4, 2), torch.randn(3, 4), torch.randint(0, 2, (3,)))
