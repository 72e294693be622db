"""A rule of one's own with a kind of its own, from the alert to the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch

from grad_callbacks import Alert, Engine, GradientGuard, Prescription, Reading, Rule
from grad_callbacks.events import declared_kinds, kind_named
from tests.support.helpers import SGD, Regression, fit, mlp


class Drifting(Rule):
    """Alerts at one step."""

    kind = "drifting"
    order = 40
    remedies: ClassVar[Mapping[str, Sequence[Any]]] = {"": [{"ClipNorm": 0.5}], "bad data": [{"ReduceLR": 0.1}]}

    def __init__(self, cause: str = "", at: int = 3) -> None:
        self.cause, self.at = cause, at

    def judge(self, reading: Reading) -> Alert | None:
        if reading.step != self.at:
            return None
        return Alert(self.kind, "critical", reading.step, (), "drifts", {}, self.cause, "", reading.optimizer)


class Unanswered(Drifting):
    """Declares no remedies."""

    kind = "unanswered"
    remedies: ClassVar[Mapping[str, Sequence[Any]]] = {}


def train(rule: Rule, prescription: Any, steps: int = 6) -> Engine:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    optimizer = SGD(model.parameters(), lr=0.01)
    engine = Engine(model, optimizer, rules=[rule, "NonFinite"], prescription=prescription)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).square().mean()
        loss.backward()
        engine.before_step(loss=loss)
        optimizer.step()
    engine.close()
    return engine


def test_a_kind_is_known_by_its_rule() -> None:
    assert "drifting" in declared_kinds()
    assert kind_named("drifting").order == 40


@pytest.mark.parametrize(("cause", "remedy"), [("", "ClipNorm"), ("bad data", "ReduceLR"), ("other", "ClipNorm")])
@pytest.mark.parametrize("preset", ["full", "gentle"])
def test_a_preset_answers_it_with_what_its_rule_declares(preset: str, cause: str, remedy: str) -> None:
    engine = train(Drifting(cause), preset)
    assert engine.record.verdict == "drifting"
    assert [(made.step, made.remedy, made.alert_kind) for made in engine.record.interventions] == [
        (3, remedy, "drifting")
    ]


@pytest.mark.parametrize(
    ("rule", "prescription"),
    [
        (Unanswered(), "full"),
        (Drifting(), "observe"),
        (Drifting(), {"nonfinite": ["SkipStep"]}),
        (Drifting(), Prescription({"nonfinite": ["SkipStep"]})),
    ],
)
def test_without_a_list_it_is_not_answered_and_the_training_goes_on(rule: Rule, prescription: Any) -> None:
    engine = train(rule, prescription)
    assert engine.seen == 6
    assert engine.record.verdict == rule.kind
    assert not engine.record.interventions


@pytest.mark.parametrize("key", ["drifting", "drifting: whatever", "drifting:whatever"])
def test_a_plan_may_name_it_with_any_cause(key: str) -> None:
    engine = train(Drifting("whatever"), {key: ["ClipNorm"], "drifting: else": ["SkipStep"]})
    assert [made.remedy for made in engine.record.interventions] == ["ClipNorm"]


@pytest.mark.parametrize("prescription", [None, {"drifting": [{"ClipNorm": 0.5}]}])
def test_a_guard_answers_it(prescription: Any) -> None:
    guard = GradientGuard(prescription, rules=[Drifting()])
    fit(Regression(mlp(4, 8, 2)), guard)
    assert guard.verdict == "drifting"
    assert [made.remedy for made in guard.interventions] == ["ClipNorm"]
    assert "drifting" in guard.report()


def test_a_trial_is_held_for_it() -> None:
    guard = GradientGuard(rules=[Drifting(at=20)], trial={"steps": 2, "from_snapshot": False})
    fit(Regression(mlp(4, 8, 2)), guard)
    [result] = guard.trials
    assert result.alert_kind == "drifting"
    assert list(result.scores)[:2] == ["none", "ClipNorm"]


def test_a_plan_for_a_kind_that_no_rule_raises_is_refused() -> None:
    plan = {"exploding": ["ClipNorm"], "drifting": ["ClipNorm"]}
    message = r"prescription\['drifting'\] answers alerts that no rule raises; the rules raise exploding"
    with pytest.raises(ValueError, match=message):
        GradientGuard(plan, rules=["Exploding"])
    model = mlp(4, 2)
    with pytest.raises(ValueError, match=message):
        Engine(model, SGD(model.parameters(), lr=0.1), rules=["Exploding"], prescription=plan)


def test_a_preset_and_an_empty_list_may_name_kinds_that_no_rule_raises() -> None:
    for prescription in (None, "gentle", {"exploding": ["ClipNorm"], "vanishing": []}):
        GradientGuard(prescription, rules=["Exploding"])


def test_what_acts_at_the_start_answers_the_first_reading_whatever_the_rules() -> None:
    GradientGuard({"vanishing": ["Reinitialize"]}, rules=["Exploding"])


def test_a_prescription_that_is_resumed_keeps_the_lists_of_own_kinds() -> None:
    first, second = (Prescription(), Prescription())
    for prescription in (first, second):
        prescription.prepare_for({"drifting"})
    second.load_state_dict(first.state_dict())
    assert [type(remedy).__name__ for remedy in second.remedies["drifting"]] == ["ClipNorm"]
