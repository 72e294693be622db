"""Layers are in the order of the forward pass, found at no later cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from grad_callbacks.measurement.layer_order import ForwardHooks, clean_name, order_of_use
from tests.support.helpers import Backwards, layers_of, mlp

IN_ORDER = ["first", "attention", "attention.out_proj", "last"]


class Checkpointed(Backwards):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("after_backward", [False, True])
@pytest.mark.parametrize("model", [Backwards(), Checkpointed()], ids=["plain", "checkpointed"])
def test_the_graph_of_the_loss_shows_the_order(model: nn.Module, after_backward: bool) -> None:
    loss = model(torch.ones(1, 2)).sum()
    if after_backward:
        loss.backward()
    assert order_of_use(loss, model) == IN_ORDER
    assert layers_of(model, order=IN_ORDER).names == tuple(IN_ORDER)


def compiled_in_place(model: nn.Module, backend: str) -> nn.Module:
    model.compile(backend=backend)
    return model


@pytest.mark.parametrize("compiled", [torch.compile, compiled_in_place], ids=["wrapped", "in place"])
def test_the_order_is_seen_through_a_compiler_without_compiling_again(compiled: Callable[..., Any]) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = compiled(Backwards(), backend="aot_eager")
    for _ in range(3):
        loss = model(torch.ones(1, 2)).sum()
        assert order_of_use(loss, model) == IN_ORDER
        loss.backward()
    assert counters["stats"]["unique_graphs"] == 1


def test_a_layer_that_runs_twice_appears_once_where_it_is_first() -> None:
    model = mlp(2, 2, 2)
    assert order_of_use(model(model(torch.ones(1, 2))).sum(), model) == ["0", "2"]


def test_tied_weights_belong_to_the_layer_that_registered_them_first() -> None:
    model = mlp(2, 2, 2)
    model[2].weight = model[0].weight
    assert order_of_use(model(torch.ones(1, 2)).sum(), model) == ["0", "2"]


def test_a_loss_without_a_graph_shows_nothing() -> None:
    assert order_of_use(torch.zeros(()), mlp(2, 2)) == []


def test_frozen_layers_stay_behind_their_registered_predecessor() -> None:
    model = mlp(2, 2, 2, 2)
    model[2].requires_grad_(False)
    shown = order_of_use(model(torch.ones(1, 2)).sum(), model)
    assert shown == ["0", "4"]
    assert layers_of(model, order=shown).names == ("0", "2", "4")


def test_hooks_find_the_order_and_leave() -> None:
    model = Backwards()
    hooks = ForwardHooks(model)
    model(torch.ones(1, 2))
    hooks.remove()
    model.last(torch.ones(1, 2))
    assert hooks.called == ["first", "attention", "last"]
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.0", "model.0"),
        ("_orig_mod.model.0", "model.0"),
        ("model._orig_mod", "model"),
        ("_forward_module._orig_mod.0", "0"),
        ("a._fsdp_wrapped_module.b._fsdp_wrapped_module", "a.b"),
        ("layer.parametrizations.weight", "layer"),
        ("parametrizations.weight", ""),
        ("", ""),
    ],
)
def test_names_are_as_their_author_wrote_them(name: str, expected: str) -> None:
    assert clean_name(name) == expected


def test_a_compiled_model_keeps_its_names() -> None:
    assert layers_of(nn.Sequential(torch.compile(mlp(2, 2, 2)))).names == ("0.0", "0.2")
