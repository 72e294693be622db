"""Why a gradient explodes, at the start and in mid-run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis import diagnose, weight_gains
from tests.support.diagnosis_cases import (
    Deep,
    Recurrent,
    Residual,
    Run,
    classes,
    cross_entropy,
    he,
    normal,
    squared_error,
    trained,
)
from tests.support.helpers import SGD


def targets_of_a_thousand(seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs, _ = classes(seed)
    return inputs, 1000 * inputs[:, :10]


def raw_inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs, labels = classes(seed)
    return 1000 * inputs, labels


STARTS: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[int], Any], str]] = {
    "relu_large": (lambda: Deep(6, nn.ReLU, normal(0.6)), cross_entropy, classes, "weights too large"),
    "tanh_large": (lambda: Deep(10, nn.Tanh, normal(0.6)), cross_entropy, classes, "weights too large"),
    "residual": (lambda: Residual(50), cross_entropy, classes, "unscaled residual branches"),
    "residual_large": (lambda: Residual(12, init=normal(0.8)), cross_entropy, classes, "weights too large"),
    "inputs": (lambda: Deep(2, nn.ReLU), cross_entropy, raw_inputs, "inputs too large"),
    "targets": (lambda: Deep(2, nn.ReLU), squared_error, targets_of_a_thousand, "targets or loss too large"),
    "targets_residual": (lambda: Residual(6), squared_error, targets_of_a_thousand, "targets or loss too large"),
    "factor": (
        lambda: Deep(2, nn.ReLU),
        lambda model, batch: 1e5 * cross_entropy(model, batch),
        classes,
        "targets or loss too large",
    ),
    "sum": (
        lambda: Deep(2, nn.ReLU),
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"),
        classes,
        "targets or loss too large",
    ),
    "rate": (lambda: Deep(4, nn.ReLU, he), cross_entropy, classes, "learning rate too high"),
    "rate_residual": (lambda: Residual(3, init=None), cross_entropy, classes, "learning rate too high"),
    "rate_regression": (
        lambda: Deep(4, nn.ReLU, he),
        squared_error,
        lambda seed: (classes(seed)[0], classes(seed)[0][:, :10]),
        "learning rate too high",
    ),
}


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", STARTS)
def test_why_the_gradient_explodes_at_the_start(name: str, steps: int) -> None:
    make, loss, batch, cause = STARTS[name]
    model = make()
    gains = weight_gains(model)
    run = Run(model, loss, SGD(model.parameters(), lr=30.0 if "rate" in name else 1e-4))
    run.train([batch(step) for step in range(steps)]).stop_at(batch(10))
    found = diagnose(run.alert("exploding"), run.case(first_gains=gains))
    assert found.cause == cause, found
    if cause == "learning rate too high":
        assert found.evidence["step_overshoots"] == 1
        assert found.evidence.get("curvature_times_rate", math.inf) > 2
        assert "lr=30 -> " in found.advice


def test_an_rnn_explodes_through_time() -> None:
    run = Run(Recurrent(radius=2.0)).stop_at(classes(time=30))
    found = diagnose(run.alert("exploding"), run.case())
    assert found.cause == "recurrence over many steps"
    assert "gradient_clip_val" in found.advice.split("; ")[0]


def test_a_rate_that_is_raised_in_mid_run() -> None:
    run = trained()
    run.optimizer.param_groups[0]["lr"] = 5.0
    run.stop_at(classes(99))
    found = diagnose(run.alert("exploding", "warning"), run.case())
    assert found.cause == "learning rate too high"
    assert "SGD" in found.advice
    run.optimizer.step()
    found = diagnose(run.stop_at(classes(100)).alert("exploding", "warning"), run.case())
    assert found.cause == "learning rate too high", "the loss jumps here, but that of the batch before has jumped too"
    assert found.evidence["loss_ratio_of_last_step"] > 2


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupt_batch_is_told_from_a_rate_too_high(seed: int) -> None:
    run = trained()
    inputs, targets = classes(50 + seed)
    wrong = torch.randint(10, targets.shape)
    run.stop_at((30 * torch.randn_like(inputs), wrong))
    case = run.case(batch_index=30)
    warning = run.alert("exploding", "warning")
    found = diagnose(warning, case)
    assert found.cause == "bad batch"
    assert found.evidence["batch_index"] == 30
    assert found.evidence["batch_loss_ratio"] > 2
    assert "batch 30" in found.message
    assert diagnose(warning, replace(case, replay=None, replay_previous=None)).cause == "bad batch"
    run.optimizer.step()
    after = run.stop_at(classes(60))
    later = diagnose(after.alert("exploding"), after.case(earlier=[found]))
    assert later.cause == "bad batch", "what follows within the episode is its consequence"
    assert "since step 30: batch 30 is unlike the others" in later.message
    assert later.evidence["batch_loss_ratio"] == found.evidence["batch_loss_ratio"]
    again = diagnose(after.alert("nonfinite"), after.case(earlier=[found, later]))
    assert again.cause in ("bad batch", "a guess")


def test_wrong_targets_alone_are_a_bad_batch() -> None:
    run = trained(60)
    inputs, targets = classes(70)
    run.stop_at((inputs, (targets + 5) % 10))
    found = diagnose(run.alert("exploding", "warning"), run.case())
    assert found.cause == "bad batch"
    assert found.evidence["batch_loss_deviations"] > 6


def test_an_rnn_that_a_high_rate_has_broken() -> None:
    model = Recurrent()
    gains = weight_gains(model)
    run = Run(model, optimizer=SGD(model.parameters(), lr=30.0)).train([classes(i, time=20) for i in range(3)])
    run.stop_at(classes(5, time=20))
    assert diagnose(run.alert("exploding"), run.case(first_gains=gains)).cause == "learning rate too high"
