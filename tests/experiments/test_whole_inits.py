"""Initialisations of whole nets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from experiments import inits
from experiments.models import MLP, Convolutional, Recurrent, ResidualConvolutional, ResidualMLP
from experiments.whole_inits import LSUV, Fixup

KIND: dict[str, Any] = {"activation": nn.ReLU, "norm": nn.Identity}


def variances(model: nn.Module, inputs: torch.Tensor) -> list[float]:
    found: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: found.append(output.detach().var().item()))
    model(inputs)
    return found


@pytest.mark.parametrize(
    "model",
    [
        MLP(64, 10, depth=12, width=32, init=LSUV(), **KIND),
        Convolutional(64, 10, depth=6, channels=8, activation=nn.Sigmoid, init=LSUV()),
        ResidualMLP(64, 10, blocks=4, width=16, init=LSUV(), branch_scale=1.0, **KIND),
    ],
)
def test_after_lsuv_every_layers_outputs_have_variance_one(model: nn.Module) -> None:
    torch.manual_seed(0)
    inputs = 7 * torch.randn(100, 64)
    LSUV().finish(model, inputs)
    found = variances(model, inputs)
    assert found == pytest.approx([1.0] * len(found), abs=0.11)


def test_lsuv_keeps_the_directions_of_the_weights_and_the_state_of_a_batch_norm() -> None:
    model = MLP(64, 10, depth=3, width=64, activation=nn.ReLU, norm=nn.BatchNorm1d, init=LSUV())
    before = model.blocks[1].linear.weight.detach().clone()
    LSUV().finish(model, torch.randn(50, 64))
    after = model.blocks[1].linear.weight.detach()
    assert torch.allclose(before / before.norm(), after / after.norm(), atol=1e-6)
    assert model.blocks[0].norm.num_batches_tracked == 0
    assert model.training


def test_lsuv_is_refused_where_layers_run_many_times_or_there_are_none() -> None:
    with pytest.raises(ValueError, match="a recurrent layer runs at every step"):
        LSUV().finish(Recurrent(4, 2, hidden=4), torch.randn(3, 5, 4))
    with pytest.raises(ValueError, match="this net has none"):
        LSUV().finish(nn.Identity(), torch.randn(3, 5))


@pytest.mark.parametrize("blocks", [3, 30])
def test_fixup_starts_as_the_stem_alone_whatever_the_depth(blocks: int) -> None:
    torch.manual_seed(0)
    model = ResidualMLP(64, 10, blocks=blocks, width=16, init=Fixup(), branch_scale=1.0, **KIND)
    inputs = torch.randn(20, 64)
    Fixup().finish(model, inputs)
    stem = model.stem(inputs)
    assert torch.equal(model.blocks(stem), stem)
    assert not model(inputs).any(), "the head starts at zero"


def test_fixup_scales_a_branchs_first_layer_by_the_root_of_the_number_of_blocks() -> None:
    def first(finish: bool) -> float:
        torch.manual_seed(0)
        model = ResidualConvolutional(64, 10, blocks=4, channels=32, activation=nn.ReLU, init=Fixup())
        if finish:
            Fixup().finish(model, torch.randn(2, 64))
        return float(next(m for m in model.blocks[0].modules() if isinstance(m, nn.Conv2d)).weight.detach().std())

    assert first(True) == pytest.approx(first(False) / 2)


def test_fixup_is_refused_without_branches_and_beside_a_normalisation() -> None:
    with pytest.raises(ValueError, match="this net has none: model=residual_mlp has"):
        Fixup().finish(MLP(4, 2, depth=2, width=4, init=inits.he, **KIND), torch.randn(3, 4))
    model = ResidualMLP(4, 2, blocks=2, width=4, activation=nn.ReLU, norm=nn.LayerNorm, init=Fixup())
    with pytest.raises(ValueError, match="choose norm=none with it"):
        Fixup().finish(model, torch.randn(3, 4))
