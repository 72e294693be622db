"""What becomes of a rule or remedy that was left out: in a checkpoint, in a trial, and of what it returns."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from experiments.bench.rules import FromTheStart
from grad_callbacks import Alert, ClipNorm, Engine, GradientGuard, Reading, Remedy, Rule
from tests.support.helpers import SGD, Regression, fit, mlp
from tests.support.trial_faults import Alarm


class Counting(Rule):
    """Counts readings, and raises at one of them."""

    kind = "counting"

    def __init__(self, fails_at: int = 3) -> None:
        self.count, self.fails_at = 0, fails_at

    def judge(self, reading: Reading) -> Alert | None:
        self.count += 1
        if self.count == self.fails_at:
            raise ZeroDivisionError
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Raising(ClipNorm):
    """Raises when it is to act, or when its hooks are taken away."""

    def __init__(self, where: str = "act") -> None:
        super().__init__(1.0)
        self.where = where

    def act(self, step: Any) -> bool | torch.Tensor:
        if self.where == "act":
            raise ZeroDivisionError
        return super().act(step)

    def detach(self) -> None:
        if self.where == "detach":
            raise ZeroDivisionError


def engine_of(rules: list[Any], plan: Any) -> Engine:
    torch.manual_seed(0)
    model = mlp(4, 8, 2)
    return Engine(model, SGD(model.parameters(), lr=0.01), rules=rules, prescription=plan)


def train(engine: Engine, steps: int = 5) -> None:
    for _ in range(steps):
        engine.optimizer.zero_grad()
        loss = engine.model(torch.ones(3, 4)).square().mean()
        loss.backward()
        engine.before_step(loss=loss)
        engine.optimizer.step()


def test_a_checkpoint_that_was_written_without_them_resumes() -> None:
    rules, plan = [Counting(), FromTheStart()], {"exploding": [Raising(), {"ReduceLR": 0.5}]}
    stopped, resumed = engine_of(rules, plan), engine_of(rules, plan)
    train(stopped)
    resumed.load_state_dict(stopped.state_dict())
    train(resumed)
    assert resumed.seen == 10


def test_a_trial_goes_on_when_a_remedy_cannot_take_its_hooks_away() -> None:
    guard = GradientGuard({"exploding": [Raising("detach"), {"ReduceLR": 0.5}]}, rules=[Alarm(12)], trial={"steps": 2})
    trained = fit(Regression(mlp(4, 8, 2), lambda p: SGD(p, lr=0.01)), guard)
    assert trained.global_step == 32
    assert guard.alerts


class Detailed(Remedy):
    """Returns a detail that no checkpoint could hold, and says with a number whether it did something."""

    def engage(self, step: Any, evidence: Any) -> dict[str, Any] | None:
        return {"lock": threading.Lock(), "share": 0.5, "rates": (1, 2)}

    def act(self, step: Any) -> torch.Tensor:
        return torch.tensor(0.5)


def test_a_detail_is_kept_as_plain_values() -> None:
    engine = engine_of([FromTheStart()], {"exploding": [Detailed()]})
    train(engine)
    [made] = engine.record.interventions
    assert made.detail["share"] == 0.5
    assert made.detail["rates"] == [1, 2]
    assert made.detail["lock"].startswith("<unlocked")
    assert made.detail["steps"] == 5


def test_treatments_from_a_list_that_the_plan_no_longer_has_are_let_go() -> None:
    plan = {"exploding": ["ClipNorm"]}
    stopped = engine_of([Alarm(2)], plan)
    train(stopped)
    state, made = stopped.state_dict(), list(stopped.record.interventions)
    state["prescription"]["(treatments)"][0]["key"] = "exploding: bad batch"
    resumed = engine_of([Alarm(2)], plan)
    resumed.record.interventions.extend(made)
    resumed.load_state_dict(state)
    train(resumed)
    assert resumed.seen == 10


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kind": "a: b"}, "kind must be a word without a colon"),
        ({"kind": "healthy"}, "kind must be a word"),
        ({"kind": "odd", "order": "first"}, "order must be a number, got 'first'"),
        ({"kind": "odd", "colour": "red"}, "colour must be written as '#rrggbb', got 'red'"),
    ],
)
def test_a_kind_that_could_not_be_shown_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        type("Odd", (Rule,), attributes)


def test_two_lists_for_one_cause_are_refused() -> None:
    with pytest.raises(ValueError, match="two lists for one kind and cause"):
        GradientGuard({"exploding: bad batch": ["ClipNorm"], "exploding:bad batch": ["SkipStep"]})
