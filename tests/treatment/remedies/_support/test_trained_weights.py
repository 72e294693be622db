"""Fresh weights are told from trained ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from grad_callbacks.treatment.remedies._support.trained_weights import looks_trained, trained_layers
from tests.support.helpers import mlp

DRAWS: list[Callable[[Tensor], Any]] = [
    lambda weight: weight,
    nn.init.xavier_normal_,
    nn.init.kaiming_uniform_,
    nn.init.orthogonal_,
    nn.init.zeros_,
    partial(nn.init.normal_, std=0.6),
    partial(nn.init.trunc_normal_, std=0.02),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", [(64, 64), (10, 64), (300, 3), (512, 128)])
def test_what_is_drawn_is_fresh(draw: Callable[[Tensor], Any], shape: tuple[int, int]) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        layer = nn.Linear(shape[1], shape[0])
        draw(layer.weight)
        assert trained_layers(nn.Sequential(layer)) == []


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
    assert not looks_trained(layer())


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
    assert looks_trained(model)
