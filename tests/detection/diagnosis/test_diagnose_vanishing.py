"""Why an error dies out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis import ActivationProbe, diagnose, weight_gains
from tests.support.diagnosis_cases import (
    Deep,
    Recurrent,
    Run,
    classes,
    he,
    normal,
    vanishes,
    xavier,
)


def large_biases(layer: nn.Linear) -> None:
    xavier(layer)
    nn.init.normal_(layer.bias, std=5.0)


def negative_biases(layer: nn.Linear) -> None:
    he(layer)
    nn.init.constant_(layer.bias, -20.0 if layer.out_features > 10 else 0.0)


def zero(layer: nn.Linear) -> None:
    normal(0.0)(layer)


VANISHING: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sigmoid_xavier": (lambda: Deep(8, nn.Sigmoid, xavier), "saturated activations"),
    "sigmoid_default": (lambda: Deep(8, nn.Sigmoid), "saturated activations"),
    "sigmoid_function": (lambda: Deep(8, torch.sigmoid, xavier), "saturated activations"),
    "sigmoid_tiny": (lambda: Deep(8, nn.Sigmoid, normal(0.01)), "weights too small"),
    "sigmoid_norm": (lambda: Deep(16, nn.Sigmoid, norm=True), "saturated activations"),
    "tanh_biases": (lambda: Deep(8, nn.Tanh, large_biases), "saturated activations"),
    "tanh_default": (lambda: Deep(24, nn.Tanh), "weights too small"),
    "tanh_deep": (lambda: Deep(60, nn.Tanh, xavier, width=16), "depth without normalisation or skips"),
    "relu_default": (lambda: Deep(24, nn.ReLU), "weights too small"),
    "relu_function": (lambda: Deep(24, torch.relu), "weights too small"),
    "relu_xavier": (lambda: Deep(30, nn.ReLU, xavier), "weights too small"),
    "relu_tiny": (lambda: Deep(6, nn.ReLU, normal(0.01)), "weights too small"),
    "relu_zero": (lambda: Deep(6, nn.ReLU, zero), "weights too small"),
    "gelu_default": (lambda: Deep(24, nn.GELU), "weights too small"),
    "relu_deep": (lambda: Deep(60, nn.ReLU, he, width=16), "depth without normalisation or skips"),
    "relu_dead": (lambda: Deep(6, nn.ReLU, negative_biases), "dead units"),
    "relu_dead_function": (lambda: Deep(6, torch.relu, negative_biases), "dead units"),
}


@pytest.mark.parametrize("name", VANISHING)
def test_why_the_error_dies_out(name: str) -> None:
    make, cause = VANISHING[name]
    run = Run(make()).stop_at(classes())
    alert = run.alert("vanishing")
    found = diagnose(alert, run.case())
    assert found.cause == cause, found
    assert found.message.startswith("seen; ")
    assert all(math.isfinite(value) for value in found.evidence.values())
    assert "norm" in found.evidence
    probe = ActivationProbe(run.model)
    probe.attach()
    run.model(run.batch[0])
    probe.detach()
    assert diagnose(alert, run.case(replay=None, activations=probe)).cause == cause, "without a replay"


@pytest.mark.parametrize("name", ["sigmoid_xavier", "relu_default", "tanh_default", "relu_xavier"])
def test_these_really_vanish(name: str) -> None:
    assert vanishes(Run(VANISHING[name][0]()).stop_at(classes()))


def test_dead_units_are_seen_in_the_profile_alone() -> None:
    run = Run(Deep(6, nn.ReLU, negative_biases)).stop_at(classes())
    for parameter in run.model.blocks.parameters():  # type: ignore[union-attr]
        parameter.grad = torch.zeros_like(parameter)
    assert diagnose(run.alert("vanishing"), run.case(replay=None)).cause == "dead units"


def test_the_message_tells_the_truth_about_sigmoid() -> None:
    run = Run(Deep(8, nn.Sigmoid, xavier)).stop_at(classes())
    found = diagnose(run.alert("vanishing"), run.case())
    assert "slope is at most 1/4" in found.message
    assert found.evidence["activation_slope"] == pytest.approx(0.236, rel=0.05)
    assert found.evidence["mean_field_factor"] == pytest.approx(0.236, rel=0.05)
    assert found.evidence["saturated_share"] < 0.01
    first, *others = found.advice.split("; ")
    assert first.startswith("`nn.Sigmoid()` at blocks.0.activation -> `nn.ReLU()`")
    assert "`nn.init.kaiming_normal_(blocks.0.linear.weight, nonlinearity='relu')`" in others[0]
    assert "`nn.BatchNorm1d(64)` after blocks.0.linear" in found.advice


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_time_is_deep_too(kind: type[nn.RNNBase]) -> None:
    run = Run(Recurrent(kind, radius=0.5 if kind is nn.RNN else None)).stop_at(classes(time=40))
    found = diagnose(run.alert("vanishing"), run.case())
    assert found.cause == "recurrence over many steps"
    assert found.evidence["through_time"] < 1e-3
    if kind is nn.RNN:
        assert found.evidence["spectral_radius"] == pytest.approx(0.5, rel=1e-4)


def test_a_loop_written_by_hand_is_recurrence() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.head = nn.Linear(16, 16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                x = torch.tanh(self.step(x))
            return self.head(x)  # type: ignore[no-any-return]

    run = Run(Loop()).stop_at(classes())
    assert diagnose(run.alert("vanishing"), run.case()).cause == "recurrence over many steps"


def test_units_that_were_killed_in_training_are_blamed_on_the_rate() -> None:
    model = Deep(4, nn.ReLU, he)
    gains = weight_gains(model)
    run = Run(model, optimizer=torch.optim.Adam(model.parameters(), lr=1.0)).train([classes(i) for i in range(25)])
    with torch.no_grad():
        for block in model.blocks:
            block["linear"].bias.fill_(-1e6)  # type: ignore[index]
    found = diagnose(run.stop_at(classes()).alert("vanishing"), run.case(first_gains=gains))
    assert found.cause == "learning rate too high"
    assert found.evidence["dead_share"] == 1
