from __future__ import annotations

import pytest
import torch
from torch import nn

from grad_callbacks.gradients import ForwardOrder, Layers
from grad_callbacks.gradients.layers import clean_name
from tests.helpers import SGD, layers_of, mlp


class Backwards(nn.Module):
    """Runs its layers in the opposite order of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2)
        self.attention = nn.MultiheadAttention(2, 1)  # calls its out_proj as a function, unseen by hooks
        self.first = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.attention(x, x, x)[0])


def test_layers_follow_the_forward_pass() -> None:
    model = Backwards()
    order = ForwardOrder(model)
    model(torch.ones(1, 2))
    order.remove()
    assert layers_of(model, order=order.names).names == ("first", "attention", "attention.out_proj", "last")
    model.last(torch.ones(1, 2))
    assert order.names == ["first", "attention", "attention.out_proj", "last"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_a_forward_pass_layers_are_in_order_of_registration() -> None:
    assert layers_of(Backwards()).names == ("last", "attention", "attention.out_proj", "first")


def test_a_layer_that_runs_twice_appears_once() -> None:
    model = mlp(2, 2, 2)
    order = ForwardOrder(model)
    model(model(torch.ones(1, 2)))
    assert order.names == ["0", "2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.0", "model.0"),
        ("_orig_mod.model.0", "model.0"),
        ("model._orig_mod", "model"),
        ("a._fsdp_wrapped_module.b._fsdp_wrapped_module", "a.b"),
        ("layer.parametrizations.weight", "layer"),
        ("parametrizations.weight", ""),
        ("", ""),
    ],
)
def test_names_are_as_their_author_wrote_them(name: str, expected: str) -> None:
    assert clean_name(name) == expected


def test_a_compiled_model_keeps_its_names_and_gets_no_hooks() -> None:
    model = nn.Sequential(torch.compile(mlp(2, 2, 2)))
    order = ForwardOrder(model)
    assert not order._handles
    assert layers_of(model).names == ("0.0", "0.2")


def test_parametrized_weights_belong_to_their_layer() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))
    layers = layers_of(model)
    assert layers.names == ("0",)
    assert len(layers.parameters) == 3


def test_parameters_of_the_root_and_outside_the_model_are_named() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2))
    stray = nn.Parameter(torch.ones(2))
    layers = Layers.of(SGD([model.weight, stray], lr=0.1), model)
    assert layers.names == ("Module", "(parameter 1 outside the model)")


def test_only_the_optimizers_own_parameters_count() -> None:
    model = mlp(2, 2, 2)
    layers = Layers.of(SGD(model[2].parameters(), lr=0.1), model)
    assert layers.names == ("2",)
    assert layers.depths.tolist() == [1]


def test_parameters_know_their_group() -> None:
    model = mlp(2, 2, 2)
    optimizer = SGD([{"params": model[2].parameters()}, {"params": model[0].parameters()}], lr=0.1)
    assert Layers.of(optimizer, model).group.tolist() == [1, 1, 0, 0]
