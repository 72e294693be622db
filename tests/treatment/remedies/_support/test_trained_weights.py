"""Fresh weights are told from trained ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from grad_callbacks.treatment.remedies._support.trained_weights import trained_layers
from tests.support.helpers import mlp

DRAWS: list[Callable[[Tensor], Any]] = [
    lambda weight: weight,
    nn.init.xavier_normal_,
    nn.init.kaiming_uniform_,
    nn.init.orthogonal_,
    nn.init.zeros_,
    partial(nn.init.normal_, std=0.6),
    partial(nn.init.trunc_normal_, std=0.02),
    nn.init.uniform_,  # from 0 to 1
    partial(nn.init.normal_, mean=0.5, std=0.3),
    partial(nn.init.sparse_, sparsity=0.9),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", [(64, 64), (10, 64), (300, 3), (512, 128)])
def test_what_is_drawn_is_fresh(draw: Callable[[Tensor], Any], shape: tuple[int, int]) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        layer = nn.Linear(shape[1], shape[0])
        draw(layer.weight)
        assert trained_layers(nn.Sequential(layer)) == []


def test_a_layer_drawn_from_zero_to_one_is_fresh_with_its_bias() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        layer = nn.Linear(64, 64)
        nn.init.uniform_(layer.weight)
        nn.init.uniform_(layer.bias)
        assert trained_layers(nn.Sequential(layer)) == []


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.05, momentum=0.9), partial(torch.optim.Adam, lr=1e-3)])
def test_weights_with_a_mean_that_were_trained_are_not(make: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    model = mlp(64, 64, 64, 10)
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight += 0.01
    optimizer = make(model.parameters())
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model((images[batch] / 16).float()), labels[batch]).backward()
            optimizer.step()
    assert trained_layers(model)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LSTM(20, 40),
        lambda: nn.GRU(8, 16),
        lambda: nn.RNN(8, 50),
        lambda: nn.MultiheadAttention(32, 4),
        lambda: nn.Conv2d(16, 32, 3),
        lambda: nn.TransformerEncoderLayer(64, 4),
    ],
)
def test_layers_as_torch_makes_them_are_fresh(layer: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert trained_layers(layer()) == []


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.05, momentum=0.9), partial(torch.optim.Adam, lr=1e-3)])
def test_what_was_trained_for_some_epochs_is_not(make: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = ((images - images.mean(0)) / (images.std(0) + 1e-6)).float()
    model = mlp(64, 64, 64, 10)
    optimizer = make(model.parameters())
    for _ in range(4):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    assert trained_layers(model)
