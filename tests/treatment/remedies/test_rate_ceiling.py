"""The ceiling that Rollback puts on the rate, and the clip whose place it takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from grad_callbacks import AdaptiveStep, Alert, Engine, Reading, Rule
from grad_callbacks.events import Intervention, Severity
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.prescription.treatment import LIMITS, PATIENCE, Treatment
from tests.support.helpers import SGD, mlp


class Telling(Rule):
    """Says at some readings that the rate is too high, though 0.3 of it would do."""

    kind = "exploding"
    active = False

    def __init__(self, severities: dict[int, Severity], cause: str = "learning rate too high") -> None:
        self.severities, self.cause = severities, cause

    def judge(self, reading: Reading) -> Alert | None:
        severity = self.severities.get(reading.step)
        told = {"reference": 1.0, "rate_that_helps": 0.3, "loss_ratio_of_last_step": 1.0}
        return severity and Alert("exploding", severity, reading.step, (), "", told, self.cause, "")

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def told(
    severities: dict[int, Severity],
    plan: list[object],
    loss_at: Callable[[int], float],
    steps: int = 150,
    cause: str = "learning rate too high",
    make: Callable[..., torch.optim.Optimizer] = SGD,
) -> tuple[Engine, list[float]]:
    """A plain loop whose engine is told what loss we like; also the rate of each step."""
    torch.manual_seed(0)
    model = mlp(4, 16, 16, 2)
    optimizer = make(model.parameters(), lr=0.01)
    rules = [Telling(severities, cause)]
    engine = Engine(model, optimizer, rules=rules, prescription={"exploding": plan}, diagnose=False)
    rates: list[float] = []
    engine.optimizer.register_step_pre_hook(lambda *_: rates.append(engine.learning_rate.effective()[0]))
    for step in range(steps):
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        engine.optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), inputs[:, :2]).backward()
        engine.before_step(loss=torch.tensor(loss_at(step)))
        engine.optimizer.step()
    engine.close()
    return engine, rates


def test_while_the_run_is_well_the_ceiling_rises_to_the_rate_that_helped() -> None:
    engine, rates = told({40: "critical"}, ["Rollback"], lambda step: 1.0)
    lowest, rising, highest = rates[41:60], rates[62:84], rates[90:]
    assert lowest == pytest.approx([0.001] * len(lowest))
    assert all(a < b < 1.05 * a for a, b in pairwise(rising))
    assert highest == pytest.approx([0.003] * len(highest))
    [made] = engine.record.interventions
    assert (made.detail["lr_scale"], made.detail["lr_scale_later"]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert "Rollback (lr_scale 0.1, later up to 0.3) from step 40" in dict(engine.record.summary())["Done"]


def test_how_far_the_rate_may_rise_is_told_where_rmsprop_begins_with_shorter_steps() -> None:
    engine, rates = told({8: "critical"}, ["Rollback"], lambda step: 1.0, steps=600, make=torch.optim.RMSprop)
    [made] = engine.record.interventions
    assert made.detail["lr_scale"] < 0.02
    assert made.detail["lr_scale_later"] == pytest.approx(0.3)
    assert rates[-1] == pytest.approx(0.003, rel=0.01)


def test_a_rate_that_stays_is_not_told_to_rise() -> None:
    engine, _ = told({40: "critical"}, ["Rollback"], lambda step: 1.0, cause="bad batch")
    [made] = engine.record.interventions
    assert (made.detail["lr_scale"], made.detail.get("lr_scale_later")) == (1.0, None)


def test_a_ceiling_that_rose_too_high_is_where_it_was_before_for_good() -> None:
    _, rates = told({40: "critical", 75: "critical"}, ["Rollback"], lambda step: 1.0)
    assert rates[74] > 0.0012
    assert rates[76:] == pytest.approx([0.001] * len(rates[76:]))


@pytest.mark.parametrize(("clip", "ends"), [("ClipNorm", True), ({"ClipNorm": 0.1}, False)])
def test_going_back_ends_the_clipping_whose_bound_its_trouble_had_set(clip: object, ends: bool) -> None:
    engine, _ = told({40: "warning", 50: "critical"}, [clip, "Rollback"], lambda step: 1.0 if step < 41 else 9.0)
    first, back = engine.record.interventions
    assert (first.remedy, back.remedy) == ("ClipNorm", "Rollback")
    assert first.detail.get("withdrawn_at") == (50 if ends else None)


def test_a_clip_that_going_back_has_ended_is_withdrawn_like_any_other_when_it_is_on_again() -> None:
    severities: dict[int, Severity] = {40: "warning", 50: "critical", 120: "warning"}
    plan: list[object] = ["ClipNorm", "Rollback"]
    engine, _ = told(severities, plan, lambda step: 9.0 if 41 <= step < 51 else 1.0, steps=350, cause="")
    made = engine.record.interventions
    assert [(each.step, each.remedy) for each in made] == [(40, "ClipNorm"), (50, "Rollback"), (120, "ClipNorm")]
    assert made[2].detail.get("withdrawn_at") == 120 + LIMITS.calm


@pytest.mark.parametrize(
    ("after", "severity", "made"),
    [(1.1, "critical", ["ClipNorm", "Rollback"]), (0.9, "critical", ["ClipNorm"]), (1.1, "warning", ["ClipNorm"])],
)
def test_a_clip_under_which_nothing_is_learned_gives_way_where_the_rate_is_too_high(
    after: float, severity: Severity, made: list[str]
) -> None:
    plan: list[object] = ["ClipNorm", "Rollback"]
    engine, _ = told({40: "warning", 100: severity}, plan, lambda step: 1.0 if step < 60 else after)
    assert [each.remedy for each in engine.record.interventions] == made


def test_what_two_interventions_watch_is_gone_back_from_once() -> None:
    severities: dict[int, Severity] = {40: "critical", 75: "critical"}
    engine, _ = told(severities, ["Rollback"], lambda step: 1.0 if step < 10 else 0.3 if step < 90 else 0.9, steps=97)
    assert [each.step for each in engine.record.interventions] == [40, 75, 75]


@pytest.mark.parametrize(("factor", "made"), [(1.0, ["ClipNorm", "Rollback"]), (0.93, ["ClipNorm"])])
def test_a_loss_that_comes_down_by_itself_is_waited_for(factor: float, made: list[str]) -> None:
    def loss_at(step: int) -> float:
        return 1.0 if step < 10 else 0.2 if step < 40 else max(0.2, factor ** (step - 40))

    engine, _ = told({40: "warning"}, ["ClipNorm", "Rollback"], loss_at, steps=80)
    assert [each.remedy for each in engine.record.interventions] == made


@pytest.mark.parametrize(("reached", "in_vain"), [(1.1, True), (0.9, False)])
def test_where_the_loss_before_is_not_known_what_was_learned_counts_from_the_start(
    reached: float, in_vain: bool
) -> None:
    course = LossLevel()
    for loss in [1.0] * 10 + [reached] * 40:
        course.feed(loss)
    alert = Alert("exploding", "critical", 0, (), "", {}, "learning rate too high", "")
    made = Intervention(0, "AdaptiveStep", "vanishing", {})
    treatment = Treatment(made, alert, AdaptiveStep(), "vanishing", 0, age=PATIENCE)
    assert treatment.is_in_vain(alert, course) == in_vain
