from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis.first_nonfinite import NonFiniteOrigin, first_nonfinite


class Broken(nn.Module):
    """A stack with an operation behind its second layer."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), Behind(operation), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))  # type: ignore[no-any-return]


class Behind(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.operation = nn.Linear(4, 4), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.linear(x))


def origin(operation: Callable[[Tensor], Tensor], inputs: Tensor | None = None) -> NonFiniteOrigin:
    model = Broken(operation)
    inputs = torch.randn(8, 4) if inputs is None else inputs
    return first_nonfinite(model, lambda: model(inputs).mean())


@pytest.mark.parametrize(
    ("operation", "name", "is_nan", "in_backward"),
    [
        (lambda x: x.relu().log(), "log", False, False),
        (lambda x: x.log(), "log", True, False),
        (lambda x: x / (x - x), "div", False, False),
        (lambda x: (x - x) / (x - x), "div", True, False),
        (lambda x: (1000 + x).exp(), "exp", False, False),
        (lambda x: (x - 10).sqrt(), "sqrt", True, False),
        (lambda x: x.masked_fill(x < 100, -math.inf).softmax(dim=1), "_softmax", True, False),
        (lambda x: (0 * x).sqrt(), "SqrtBackward0", False, True),
        (lambda x: (0 * x).norm(dim=1, keepdim=True).expand(-1, 4) ** 0.5, "PowBackward0", False, True),
        (lambda x: torch.where(x > 99, (0 * x).log(), x), "LogBackward0", True, True),
    ],
)
def test_the_first_operation_is_named(operation: Any, name: str, is_nan: bool, in_backward: bool) -> None:
    found = origin(operation)
    assert found.source == "operation"
    assert found.in_backward is in_backward
    if name:
        assert (found.operation, found.is_nan) == (name, is_nan)
    assert found.line.startswith("test_first_nonfinite.py:")
    if not in_backward:
        assert found.module == "second"


def test_a_line_of_pythons_own_library_is_not_the_users() -> None:
    nowhere = eval(compile("lambda x: x.log()", "<string>", "eval"))  # in no file
    assert origin(functools.singledispatch(nowhere), -torch.ones(8, 4)).line.startswith("test_first_nonfinite.py:")


def too_short(x: Tensor) -> Tensor:
    """Eight labels for two frames."""
    frames = x.log_softmax(dim=1)[:2].unsqueeze(1)
    labels = torch.ones(1, 8, dtype=torch.long)
    return x + nn.functional.ctc_loss(frames, labels, [2], [8])


@pytest.mark.parametrize(
    "operation",
    [
        too_short,
        lambda x: x + torch.linalg.slogdet(0 * x[:4])[1],
        lambda x: torch.special.polygamma(1, 0 * x),
        lambda x: torch.special.ndtri(0 * x),
    ],
)
def test_an_infinity_at_ordinary_arguments_is_no_overflow(operation: Any) -> None:
    found = origin(operation)
    assert (found.source, found.is_nan, found.in_backward) == ("operation", False, False)


@pytest.mark.parametrize("operation", [lambda x: (1e25 + x) * (1e25 + x), lambda x: (1e39 * x.double()).float()])
def test_an_infinity_of_large_arguments_is_an_overflow(operation: Any) -> None:
    assert origin(operation).source == "overflow"


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x,
        lambda x: x.masked_fill(torch.eye(8, 4) > 0, -math.inf).softmax(dim=1),  # a mask
        lambda x: torch.where(x > 0, x, torch.zeros(()).log()).amax(dim=1, keepdim=True).clamp(-9, 9) + x,  # heals
    ],
)
def test_an_infinity_that_does_no_harm_is_none(operation: Any) -> None:
    assert origin(operation).source == ""


def test_what_was_there_before_is_told_from_what_is_made() -> None:
    inputs = torch.randn(8, 4)
    inputs[3, 1] = math.nan
    found = origin(lambda x: x, inputs)
    assert (found.source, found.module) == ("input", "first")
    model = Broken(lambda x: x)
    with torch.no_grad():
        model.third.weight[0, 0] = math.inf
    assert first_nonfinite(model, lambda: model(torch.ones(2, 4)).sum()).source in ("input", "weights")


def test_float32_overflows_by_size() -> None:
    found = origin(lambda x: (1e25 * x) * (1e25 * x))
    assert (found.source, found.operation, found.module) == ("overflow", "mul", "second")


def test_half_precision_overflows_earlier() -> None:
    model = Broken(lambda x: 1e4 * x)
    with torch.no_grad():
        model.third.weight.fill_(30.0)

    def replay() -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return model(torch.ones(8, 4) * 10).float().mean()  # type: ignore[no-any-return]

    found = first_nonfinite(model, replay)
    assert found.source == "16-bit overflow"
    found = first_nonfinite(model, lambda: model(torch.ones(8, 4)).mean())
    assert found.source == ""


def test_log_of_zero_in_half_precision_is_no_overflow() -> None:
    model = nn.Linear(4, 4).half()
    found = first_nonfinite(model, lambda: model(torch.ones(2, 4).half()).relu().log().mean())
    assert (found.source, found.operation) == ("operation", "log")


def test_a_gradient_overflows_under_a_loss_scale() -> None:
    model = nn.Linear(4, 4).half()

    def replay() -> Tensor:
        return (100 * model(torch.ones(2, 4).half())).sum()  # type: ignore[no-any-return]

    assert first_nonfinite(model, replay).source == ""
    found = first_nonfinite(model, replay, loss_scale=60000.0)
    assert (found.source, found.in_backward) == ("16-bit overflow", True)


def test_a_replay_that_fails_tells_nothing() -> None:
    def fail() -> Tensor:
        raise ValueError

    assert first_nonfinite(nn.Linear(2, 2), fail) == NonFiniteOrigin()
