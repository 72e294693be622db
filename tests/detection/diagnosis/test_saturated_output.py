"""Why nothing comes back from the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from grad_callbacks import Alert
from grad_callbacks.detection.diagnosis import diagnose
from grad_callbacks.detection.diagnosis.case import Case


def found(end: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], target: Tensor) -> Alert:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), end)
    x = torch.randn(16, 4)
    alert = Alert("vanishing", "critical", 30, (), "seen", {}, "saturated output", "")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    return diagnose(alert, Case(model, optimizer=optimizer, rates=(0.03,), replay=lambda: criterion(model(x), target)))


CLASSES = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(0))
RAW = 500 * torch.rand(16, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.ReLU(), nn.Sigmoid()])
def test_an_activation_in_front_of_the_cross_entropy_is_named(end: nn.Module) -> None:
    alert = found(end, F.cross_entropy, CLASSES)
    assert alert.cause == "saturated output"
    assert f"the {type(end).__name__} in front of the cross entropy" in alert.message
    assert alert.advice.startswith(f"logits: no {type(end).__name__}")
    assert "lr=0.03 -> 0.003 in Adam" in alert.advice


def test_an_output_that_cannot_reach_its_targets_is_named_with_their_size() -> None:
    alert = found(nn.Sigmoid(), F.mse_loss, RAW)
    assert alert.cause == "saturated output"
    assert alert.evidence["target"] == pytest.approx(float(RAW.square().mean().sqrt()))
    assert "no Sigmoid at the output" in alert.advice


def test_dead_units_are_dead_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[0].bias, -50.0)  # type: ignore[arg-type]
    x = torch.randn(16, 4)
    alert = Alert("vanishing", "critical", 3, (), "seen", {}, "saturated output", "")
    assert diagnose(alert, Case(model, replay=lambda: F.cross_entropy(model(x), CLASSES))).cause == "dead units"


def test_logits_are_not_blamed() -> None:
    alert = found(nn.Identity(), F.cross_entropy, CLASSES)
    assert "nothing comes back from the loss" in alert.message
