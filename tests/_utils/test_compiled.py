"""Compiled models are recognised, whole or in part."""

from __future__ import annotations

import torch
from torch import nn

from grad_callbacks._utils.compiled import can_run_eagerly, eagerly, has_compiled_part, is_compiled


def test_a_wrapper_is_recognised_and_what_it_wraps_is_not() -> None:
    layer = nn.Linear(2, 2)
    wrapped = torch.compile(layer)
    assert is_compiled(wrapped)  # type: ignore[arg-type]
    assert not is_compiled(layer)


def test_one_compiled_part_is_enough() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not has_compiled_part(plain, in_place=True)
    assert has_compiled_part(nn.Sequential(torch.compile(nn.Linear(2, 2)), nn.ReLU()))  # type: ignore[arg-type]


def test_modules_compiled_in_place_count_where_that_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].compile()
    assert not has_compiled_part(model)
    assert has_compiled_part(model, in_place=True)


def test_inside_eagerly_hooks_see_everything_and_nothing_is_compiled() -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = nn.Sequential(torch.compile(plain, backend=backend))  # type: ignore[arg-type]
    x, seen = torch.randn(3, 2), []
    expected = model(x)
    assert len(compiled) == 1
    assert can_run_eagerly(model)
    handle = plain[0].register_forward_hook(lambda *_: seen.append(1))
    with eagerly():
        assert torch.equal(model(x), expected)
    handle.remove()
    assert seen == [1]
    model(x)
    assert len(compiled) == 1, "compiled once, hooks or not"
