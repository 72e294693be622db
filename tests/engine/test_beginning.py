"""What the first reading shows, with and without a remedy for it."""

from __future__ import annotations

import torch
from torch import nn

from grad_callbacks import Engine
from tests.support.helpers import SGD, mlp


def begun(model: nn.Module, lr: float, prescription: str | None, size: float = 1.0) -> Engine:
    """An engine that has judged the first step of a regression."""
    engine = Engine(model, SGD(model.parameters(), lr=lr), prescription=prescription)
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    loss = (model(inputs) - size).square().mean()
    loss.backward()
    engine.before_step(loss=loss)
    return engine


def small() -> nn.Sequential:
    torch.manual_seed(0)
    model = mlp(*[16] * 12, 1)
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=0.01)
    return model


def test_a_fault_of_the_initialisation_is_told_by_monitor_and_guard() -> None:
    for prescription in (None, "full"):
        [alert] = begun(small(), 0.1, prescription).record.alerts
        assert (alert.kind, alert.step, alert.cause) == ("vanishing", 0, "weights too small")


def test_a_first_step_that_leaves_nothing_of_the_weights_is_told() -> None:
    def causes(lr: float, prescription: str | None) -> list[str]:
        torch.manual_seed(0)
        return [alert.cause for alert in begun(mlp(16, 16, 16, 16, 1), lr, prescription).record.alerts]

    for prescription in (None, "full"):
        assert causes(10.0, prescription) == ["learning rate too high"]
        assert causes(3.0, prescription) == [], "some that begin so settle"
