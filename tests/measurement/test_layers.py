from __future__ import annotations

import torch
from torch import Tensor, nn

from grad_callbacks.measurement import Layers
from grad_callbacks.measurement.layer_order import order_of_use
from tests.support.helpers import SGD, Backwards, layers_of, mlp


def test_without_a_forward_pass_layers_are_in_order_of_registration() -> None:
    assert layers_of(Backwards()).names == ("last", "attention", "attention.out_proj", "first")


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


class Functional(nn.Module):
    """A network of functions, whose weights are in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = nn.ParameterDict({str(i): nn.Parameter(torch.zeros(4)) for i in range(3)})
        self.weights = nn.ParameterList(torch.eye(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights, self.biases.values(), strict=True):
            x = nn.functional.linear(x, weight, bias).sigmoid()
        return x


def test_each_weight_of_a_list_is_a_layer_in_the_order_of_use() -> None:
    model = Functional()
    order = order_of_use(model(torch.ones(2, 4)).sum(), model)
    assert [name for name in order if name.startswith("weights")] == ["weights.0", "weights.1", "weights.2"]
    layers = layers_of(model, order=order)
    assert set(layers.names) == {f"{kind}.{i}" for kind in ("weights", "biases") for i in range(3)}
    assert layers.has_weight.sum() == 3
