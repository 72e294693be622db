from __future__ import annotations

import math
from itertools import pairwise

from grad_callbacks import Alert, StepResult
from grad_callbacks.reporting.step_series import COLUMNS, FOR_RULES, StepSeries
from tests.support.helpers import reading


def outlook(step: int, alarmed: bool = False) -> StepResult:
    alerts = [Alert("exploding", "warning", step, (), "", {}, "", "")] if alarmed else []
    return StepResult(reading([3.0, 4.0], step=step, loss=0.5), alerts, [], 1.0, 0.2, 1.0, 0.1)


def test_a_step_is_a_row() -> None:
    course = StepSeries()
    course.note(outlook(7))
    [row] = course.to_frame()[list(COLUMNS)].to_dict("records")
    assert row == {"step": 7, "optimizer": 0, "norm": 5.0, "norm_clipped": 1.0, "lr_effective": 0.1, "loss": 0.5}


def test_a_row_has_what_rules_ask_for() -> None:
    course = StepSeries()
    course.note(
        StepResult(reading([3.0], displacement=0.25, squares_decay=0.9, overflow=True), [], [], 1.0, 1.0, 1.0, 0.1)
    )
    [row] = course.to_frame()[list(FOR_RULES)].to_dict("records")
    assert (row["displacement"], row["squares_decay"], row["overflow"], row["fill"]) == (0.25, 0.9, 1.0, 1.0)
    assert math.isnan(row["clip_at"])


def test_it_reads_the_state_of_an_older_version() -> None:
    course = StepSeries()
    course.load_state_dict({"rows": [[7, 0, 5.0, 1.0, 0.1, 0.5]], "seen": {0: 1}, "stride": 1})
    [row] = course.to_frame().to_dict("records")
    assert row["loss"] == 0.5
    assert math.isnan(row["displacement"])


def test_it_stays_small_and_even() -> None:
    course = StepSeries(max_steps=20)
    for step in range(1000):
        course.note(outlook(step))
    steps = course.to_frame()["step"].tolist()
    assert 10 <= len(steps) <= 20
    assert len({after - before for before, after in pairwise(steps)}) == 1


def test_alerts_are_noted_between() -> None:
    course = StepSeries(max_steps=10)
    for step in range(101):
        course.note(outlook(step, alarmed=step == 99))
    assert 99 in course.to_frame()["step"].tolist()


def test_it_goes_on_from_its_state() -> None:
    whole, first, second = StepSeries(20), StepSeries(20), StepSeries(20)
    for step in range(200):
        whole.note(outlook(step))
        (first if step < 77 else second).note(outlook(step))
        if step == 76:
            second.load_state_dict(first.state_dict())
    assert second.to_frame().equals(whole.to_frame())


def test_before_the_first_step_it_is_empty() -> None:
    frame = StepSeries().to_frame()
    assert frame.empty
