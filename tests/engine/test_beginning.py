"""What the first reading shows, with and without a remedy for it."""

from __future__ import annotations

import torch
from torch import nn

from grad_callbacks import Alert, Batch, Engine, Evidence, Reading, Rule
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


class Spike(Rule):
    """Raises alerts of a kind at some readings, and takes back those of ``refuted``."""

    kind = "exploding"

    def __init__(self, kind: str, *places: int, refuted: bool = False) -> None:
        self.__dict__["kind"] = kind
        self.places, self.refuted, self.count = places, refuted, -1

    def judge(self, reading: Reading) -> Alert | None:
        self.count += 1
        if self.count not in self.places:
            return None
        return Alert(self.kind, "critical", reading.step, (), "", Evidence({}), "learning rate too high", "")

    def is_borne_out(self, alert: Alert, is_tried: bool) -> bool:
        return not self.refuted


def train(model: nn.Module, rules: list[Rule], steps: int) -> Engine:
    optimizer = SGD(model.parameters(), lr=1e-4)
    engine = Engine(model, optimizer, rules=rules)
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        engine.before_step(loss=loss, batch=Batch(inputs, 0, lambda: (model(inputs) - 1).square().mean()))
        optimizer.step()
    engine.close()
    return engine


def test_what_the_first_reading_has_told_is_news_again_later() -> None:
    engine = train(small(), [Spike("vanishing", 20, 150)], 160)
    assert [alert.step for alert in engine.record.alerts] == [0, 150], "not 20, which says the same again"
    engine = train(small(), [Spike("vanishing", 150)], 160)
    assert [alert.step for alert in engine.record.alerts] == [0, 150]


def test_an_alert_that_is_refuted_leaves_nothing_behind() -> None:
    torch.manual_seed(0)
    rules: list[Rule] = [Spike("exploding", 5, refuted=True), Spike("vanishing", 30)]
    engine = train(mlp(16, 16, 16, 1), rules, 40)
    assert [(alert.kind, alert.step) for alert in engine.record.alerts] == [("vanishing", 30)], "nothing has led to it"
    torch.manual_seed(0)
    rules = [Spike("exploding", 5, refuted=True), Spike("exploding", 6)]
    engine = train(mlp(16, 16, 16, 1), rules, 40)
    [alert] = engine.record.alerts
    assert "since step" not in alert.message
