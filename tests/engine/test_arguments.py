"""Arguments of an engine are checked where they are written, and states of other versions are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from grad_callbacks import Alert, Engine, GradientMonitor, Reading, Rule, StepContext
from tests.support.helpers import SGD, mlp


def engine(**options: Any) -> Engine:
    model = mlp(4, 2)
    return Engine(model, SGD(model.parameters(), lr=0.1), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diagnose": "no"}, "diagnose must be True or False, got 'no'"),
        ({"every_n_steps": 0}, "every_n_steps must be"),
        ({"rules": ["Explodng"]}, "unknown rule 'Explodng'.*did you mean 'Exploding'"),
        ({"prescription": {1: 2}}, "got the key 1"),
        ({"prescription": {"exploding": 2}}, r"prescription\['exploding'\] must be a list of remedies, got 2"),
        ({"prescription": {"exploding": ["os.system"]}}, r"prescription\['exploding'\]: 'os.system' is not a remedy"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine(**options)


def test_old_names_of_arguments_are_taken_with_a_warning() -> None:
    results: list[Any] = []
    with pytest.warns(DeprecationWarning, match="on_outlook is now called on_step_result"):
        watched = engine(on_outlook=results.append)
    watched.model(torch.ones(1, 4)).sum().backward()
    with pytest.warns(DeprecationWarning, match="around is now called context"):
        watched.before_step(around=StepContext(fill=0.5))  # type: ignore[call-arg]
    assert [result.reading.fill for result in results] == [0.5]


@pytest.mark.parametrize("key", ["gauge", "rules", "course", "seen", "prescription"])
def test_a_state_of_another_version_is_refused_in_one_line(key: str) -> None:
    saved = engine(prescription="full").state_dict()
    del saved[key]
    with pytest.raises(ValueError, match=f"the state of the engine has no '{key}'.*another version"):
        engine(prescription="full").load_state_dict(saved)


def test_a_state_of_another_version_of_a_rule_or_remedy_names_it() -> None:
    saved = engine(prescription="full").state_dict()
    saved["rules"][0][1].pop("recurrence", None)
    saved["rules"][0][1] = {}
    with pytest.raises(ValueError, match="the state of Exploding has no"):
        engine(prescription="full").load_state_dict(saved)
    saved = engine(prescription="full").state_dict()
    del saved["prescription"]["(answers)"]
    with pytest.raises(ValueError, match=r"state of the prescription has no '\(answers\)'"):
        engine(prescription="full").load_state_dict(saved)


def test_a_rule_without_a_kind_is_refused() -> None:
    class Nameless(Rule):
        def judge(self, reading: Reading) -> Alert | None:
            return None

    for make in (lambda rules: GradientMonitor(rules=rules), lambda rules: engine(rules=rules)):
        with pytest.raises(ValueError, match="Nameless has no kind: set its class attribute `kind`"):
            make([Nameless()])
