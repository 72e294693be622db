"""A rule or remedy that raises an error is logged and left out, and the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from experiments.bench.rules import FromTheStart
from grad_callbacks import Alert, Engine, GradientGuard, GradientMonitor, Reading, Remedy, Rule
from tests.support.helpers import SGD, Poisoned, Regression, fit, mlp
from tests.support.trial_faults import Alarm


class Broken(Rule):
    """Raises in one of its methods."""

    kind = "broken"

    def __init__(self, where: str, error: type[BaseException] = ZeroDivisionError) -> None:
        self.where, self.error, self.calls = where, error, 0

    def fail(self, where: str) -> None:
        if self.where == where:
            self.calls += 1
            raise self.error("oh no")

    def judge(self, reading: Reading) -> Alert | None:
        self.fail("judge")
        return "no alert" if self.where == "result" else None  # type: ignore[return-value]

    @property
    def active(self) -> bool:
        self.fail("active")
        return False

    @property
    def near(self) -> bool:
        self.fail("near")
        return False

    def state_dict(self) -> dict[str, Any]:
        self.fail("state_dict")
        return {}


class Fragile(Remedy):
    """Raises in one of its methods, perhaps after it has changed the step."""

    needs_snapshots = True

    def __init__(self, where: str, error: type[BaseException] = ZeroDivisionError) -> None:
        self.where, self.error, self.calls = where, error, 0
        self.is_attached = True

    def fail(self, where: str) -> None:
        if self.where == where:
            self.calls += 1
            raise self.error("oh no")

    def engage(self, step: Any, evidence: Any) -> dict[str, Any] | None:
        self.fail("engage")
        return [] if self.where == "result" else {}  # type: ignore[return-value]

    def act(self, step: Any) -> bool:
        if self.where == "act":
            step.multiply(0.5)
        self.fail("act")
        return False

    def note(self, step: Any, is_well: bool) -> None:
        self.fail("note")

    def before_backward(self, loss: Any) -> None:
        self.fail("before_backward")

    def attach(self, model: Any) -> None:
        self.fail("attach")

    def detach(self) -> None:
        self.is_attached = False
        self.fail("detach")

    def state_dict(self) -> dict[str, Any]:
        self.fail("state_dict")
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def train(steps: int = 6, **options: Any) -> Engine:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    optimizer = SGD(model.parameters(), lr=0.01)
    engine = Engine(model, optimizer, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).square().mean()
        engine.before_backward(loss)
        loss.backward()
        engine.before_step(loss=loss)
        optimizer.step()
    engine.state_dict()
    engine.close()
    return engine


@pytest.mark.parametrize("where", ["judge", "active", "near", "state_dict", "result"])
def test_a_rule_that_fails_is_left_out(where: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "grad_callbacks"):
        engine = train(rules=[Broken(where), FromTheStart()], prescription={"exploding": ["ClipNorm"]})
    assert engine.seen == 6
    assert [alert.kind for alert in engine.record.alerts] == ["exploding"], "other rules go on"
    [broken] = [rule for rule in engine.rules if isinstance(rule, Broken)]
    assert broken.calls == (where != "result")
    [record] = [entry for entry in caplog.records if "Broken raised an error" in entry.getMessage()]
    assert record.exc_info is not None


@pytest.mark.parametrize("where", ["engage", "act", "note", "before_backward", "state_dict", "detach", "result"])
def test_a_remedy_that_fails_is_left_out(where: str, caplog: pytest.LogCaptureFixture) -> None:
    plan = {"exploding": [Fragile(where), {"ClipNorm": 0.5}]}
    with caplog.at_level(logging.ERROR, "grad_callbacks"):
        engine = train(rules=[FromTheStart()], prescription=plan)
    assert engine.seen == 6
    assert engine.prescription is not None
    fragile = engine.prescription.remedies["exploding"][0]
    assert isinstance(fragile, Fragile)
    assert fragile.calls == (where != "result")
    assert not fragile.is_attached, "its hooks are gone"
    assert sum("Fragile raised an error" in entry.getMessage() for entry in caplog.records) == 1
    has_changed = "had already changed this step" in caplog.text
    assert has_changed == (where == "act")


def test_the_next_remedy_answers_in_place_of_one_that_fails() -> None:
    plan = {"exploding": [Fragile("engage"), {"ClipNorm": 0.5}]}
    engine = train(rules=[Alarm(3)], prescription=plan)
    assert [made.remedy for made in engine.record.interventions] == ["ClipNorm"]


def test_a_remedy_that_fails_later_counts_as_withdrawn() -> None:
    engine = train(rules=[Alarm(1)], prescription={"exploding": [Fragile("act")]})
    engine_of_late = train(rules=[Alarm(3)], prescription={"exploding": [Late()]})
    assert not engine.record.interventions, "it has failed before the alert"
    [made] = engine_of_late.record.interventions
    assert made.detail["withdrawn_at"] == 4


class Late(Remedy):
    """Fails in the step that it was switched on for."""

    clips = True
    on = False

    def engage(self, step: Any, evidence: Any) -> dict[str, Any]:
        self.on = True
        return {}

    def act(self, step: Any) -> bool:
        if self.on:
            raise ZeroDivisionError
        return False


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(error: type[BaseException]) -> None:
    with pytest.raises(error):
        train(rules=[Broken("judge", error)])
    with pytest.raises(error):
        train(rules=[FromTheStart()], prescription={"exploding": [Fragile("act", error)]})


def test_engines_do_not_share_what_is_left_out() -> None:
    rule = Broken("judge")
    assert [train(rules=[rule]).rules[0].calls for _ in range(2)] == [1, 1]  # type: ignore[attr-defined]


def test_a_monitor_goes_on_without_a_rule_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    monitor = GradientMonitor(rules=[Broken("judge"), "NonFinite"])
    fit(Poisoned(mlp(4, 8, 2), factors={5: float("nan")}), monitor)
    assert monitor.verdict == "nonfinite"
    assert caplog.text.count("Broken raised an error") == 1


@pytest.mark.parametrize("where", ["engage", "act"])
def test_a_guard_goes_on_without_a_remedy_that_fails(where: str, caplog: pytest.LogCaptureFixture) -> None:
    guard = GradientGuard({"exploding": [Fragile(where), {"ClipNorm": 0.5}]}, rules=[Alarm(10)])
    run = fit(Regression(mlp(4, 8, 2)), guard)
    assert run.global_step == 32
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert caplog.text.count("Fragile raised an error") == 1


def test_in_a_trial_a_remedy_that_fails_loses() -> None:
    class Failing(Late):
        """Has no clips of its own."""

    guard = GradientGuard(
        {"exploding": [Failing(), {"ClipNorm": 0.5}]}, rules=[Alarm(20)], trial={"steps": 3, "from_snapshot": False}
    )
    fit(Regression(mlp(4, 8, 2)), guard)
    [result] = guard.trials
    assert result.scores["Failing"] == float("inf")
    assert result.winner != "Failing"


@pytest.mark.parametrize(("kind", "severity"), [("", "warning"), (7, "warning"), ("plateau", "serious")])
def test_an_alert_that_nothing_could_show_leaves_its_rule_out(
    kind: Any, severity: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Rule):
        kind = "odd"

        def judge(self, reading: Reading) -> Alert | None:
            return Alert(given, severity, reading.step, (), "odd", {}, "", "")

    given = kind
    monitor = GradientMonitor(rules=[Odd()])
    with caplog.at_level(logging.ERROR, logger="grad_callbacks"):
        fit(Regression(mlp(4, 8, 2), lambda p: SGD(p, lr=0.01)), monitor)
    assert monitor.alerts == []
    assert [record.getMessage() for record in caplog.records] == [
        "Odd raised an error and is left out from now on; the training goes on"
    ]
