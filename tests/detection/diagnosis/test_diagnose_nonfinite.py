"""Why a gradient is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks import Alert
from grad_callbacks.detection.diagnosis import Case, diagnose
from grad_callbacks.events import Evidence
from tests.support.diagnosis_cases import (
    Deep,
    Run,
    classes,
    cross_entropy,
    he,
    normal,
    trained,
)
from tests.support.helpers import SGD


def with_nan(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, targets = batch
    inputs[0, 0] = math.nan
    return inputs, targets


def test_nan_in_the_inputs_is_a_bad_batch() -> None:
    run = trained().stop_at(with_nan(classes(40)))
    found = diagnose(run.alert("nonfinite"), run.case(batch_index=4))
    assert found.cause == "bad batch"
    assert found.evidence["batch_nonfinite"] == 1


def log_of_zero(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model, batch) + model(batch[0]).relu().log().mean()


def root_of_zero(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    rows = model(batch[0])
    return cross_entropy(model, batch) + (rows[:, None] - rows[None]).square().sum(dim=2).sqrt().mean()


def mean_of_nothing(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), torch.full_like(batch[1], -100))


@pytest.mark.parametrize(
    ("loss", "named"), [(log_of_zero, "`log`"), (root_of_zero, "`SqrtBackward0`"), (mean_of_nothing, "nll_loss")]
)
def test_an_undefined_operation_is_named(loss: Any, named: str) -> None:
    run = trained()
    run.loss = loss
    run.stop_at(classes(40))
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "undefined operation"
    assert named in found.message


def test_overflow_in_half_precision() -> None:
    model = Deep(3, nn.ReLU, normal(4.0))
    run = Run(model, lambda model, batch: autocast(cross_entropy)(model, batch)).stop_at(classes())
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "16-bit overflow"
    assert "65504" in found.message
    assert "bf16-mixed" in found.advice
    reading = replace(run.reading, overflow=True)
    assert diagnose(run.alert("nonfinite"), Case(model, reading)).cause == "16-bit overflow"


def autocast(loss: Any) -> Any:
    def half(*arguments: Any) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            return loss(*arguments)  # type: ignore[no-any-return]

    return half


def test_a_diverged_run_is_blamed_on_the_rate() -> None:
    model = Deep(3, nn.ReLU, he)
    run = Run(model, optimizer=SGD(model.parameters(), lr=50.0))
    for step in range(20):
        run.stop_at(classes(step))
        if not run.reading.is_finite:
            break
        run.optimizer.step()
    assert not run.reading.is_finite
    assert diagnose(run.alert("nonfinite"), run.case()).cause == "learning rate too high"
    assert diagnose(run.alert("nonfinite"), run.case(replay=None)).cause == "learning rate too high"


@pytest.mark.parametrize(
    ("dtype", "eps", "cure"), [(torch.float32, 0.0, "eps=1e-08"), (torch.float16, 1e-8, "eps=6.1e-05")]
)
def test_an_optimizer_that_divides_by_zero_is_told_with_the_eps_that_does_not(
    dtype: torch.dtype, eps: float, cure: str
) -> None:
    model = nn.Linear(4, 2, bias=False).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=eps)
    inputs = torch.ones(8, 4, dtype=dtype) * torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=dtype)  # no gradient of the last
    model(inputs).square().mean().backward()
    optimizer.step()
    assert not torch.isfinite(model.weight).all(), "the step itself has made them NaN"
    alert = Alert("nonfinite", "critical", 1, (), "seen", Evidence(), "", "")
    found = diagnose(alert, Case(model, optimizer=optimizer))
    assert found.cause == "non-finite weights"
    assert "divided by a root of 0" in found.message
    assert cure in found.advice


def test_weights_that_were_bad_before() -> None:
    run = trained()
    with torch.no_grad():
        run.model.head.bias[0] = math.inf  # type: ignore[union-attr, index, operator]
    run.stop_at(classes(40))
    found = diagnose(run.alert("nonfinite"), run.case())
    assert found.cause == "non-finite weights"
    exploded = replace(run.alert("exploding"), cause="bad batch", step=25)
    assert diagnose(run.alert("nonfinite"), run.case(earlier=[exploded])).cause == "bad batch"
