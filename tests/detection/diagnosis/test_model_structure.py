from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from grad_callbacks.detection.diagnosis.model_structure import Structure
from tests.support.diagnosis_cases import Deep, Recurrent, Residual, Transformer, classes, cross_entropy


def structure(model: nn.Module, **options: Any) -> Structure:
    return Structure.of(model, cross_entropy(model, classes(**options)))


@pytest.mark.parametrize("function", [nn.Sigmoid, torch.sigmoid])
def test_a_plain_stack(function: Any) -> None:
    found = structure(Deep(8, function))
    assert (found.depth, found.norms, found.skips, found.activation) == (9, 0, 0, "Sigmoid")
    assert found.activations == {"Sigmoid": 8}


def test_norms_and_skips_are_counted() -> None:
    assert structure(Deep(4, nn.ReLU, norm=True)).norms == 4
    found = structure(Residual(10))
    assert (found.depth, found.skips, found.norms) == (22, 10, 0)


@pytest.mark.parametrize("norm_first", [False, True])
def test_where_a_transformer_has_its_norms(norm_first: bool) -> None:
    found = structure(Transformer(3, norm_first), time=5)
    assert found.has_attention
    assert found.skips >= 5  # the first adds to the input, which is in no graph
    assert found.is_post_norm is not norm_first


@pytest.mark.parametrize(("kind", "gated"), [(nn.RNN, False), (nn.GRU, True), (nn.LSTM, True)])
def test_recurrence(kind: type[nn.RNNBase], gated: bool) -> None:
    found = structure(Recurrent(kind), time=12)
    assert (found.recurrent, found.is_gated) == (("memory",), gated)
    if kind is nn.RNN:
        assert found.skips == 0


def test_a_weight_used_over_and_over_is_recurrence() -> None:
    layer = nn.Linear(4, 4)
    x = torch.randn(2, 4)
    for _ in range(9):
        x = layer(x)
    assert Structure.of(layer, x.sum()).recurrent == ("(a weight used 9 times)",)


def test_without_a_graph_the_modules_tell() -> None:
    found = Structure.of(Deep(4, nn.Tanh, norm=True))
    assert (found.depth, found.norms, found.skips, found.activation) == (5, 4, 0, "Tanh")
    assert Structure.of(nn.ReLU(), torch.zeros(())).depth == 0


def test_two_losses_and_two_branches_are_no_skip() -> None:
    left, right = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    x = torch.randn(2, 4)
    y = left(x) + right(x)
    assert Structure.of(left, y.sum() + y.square().mean() + left.weight.square().sum()).skips == 0
