"""Spikes and episodes, by the norm and by how far a step moves the weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grad_callbacks import Exploding
from tests.support.exploding_readings import judged

SPIKE = {"norms": [6.0, 8.0], "displacement": 1.0}


def test_a_spike_that_throws_the_weights_about_is_a_warning_in_its_own_step() -> None:
    [alert] = judged(Exploding(), SPIKE)
    assert (alert.kind, alert.severity, alert.step) == ("exploding", "warning", 30)
    assert alert.evidence["norm"] == pytest.approx(10.0)
    assert alert.evidence["ratio"] == pytest.approx(10.0)
    assert alert.evidence["reference"] == pytest.approx(1.0)
    assert alert.layers == ("1",), "most of its square"
    assert alert.cause
    assert alert.advice


@pytest.mark.parametrize(
    "event",
    [
        {"norms": [6.0, 8.0], "displacement": 0.1},  # large, but it moves nothing: leaving a plateau
        {"norms": [0.6, 0.8], "displacement": 0.9},  # a bold step of usual size
        {"norms": [60.0, 80.0], "displacement": math.nan},  # an adaptive optimizer takes it
        {"norms": [math.nan, 8.0], "displacement": 1.0},  # another rule's business
        {**SPIKE, "overflow": True},
    ],
)
def test_what_is_no_explosion(event: dict[str, Any]) -> None:
    assert judged(Exploding(), event) == []


def test_a_second_alarm_makes_it_critical_and_the_rest_of_the_episode_is_silent() -> None:
    alerts = judged(Exploding(), *[SPIKE] * 19)
    assert [alert.severity for alert in alerts] == ["warning", "critical"]
    assert "learning rate" in alerts[1].cause


@pytest.mark.parametrize(("apart", "severities"), [(2, ["warning", "critical"]), (3, ["warning"])])
def test_bad_batches_that_are_further_apart_are_no_diverging_run(apart: int, severities: list[str]) -> None:
    calm = {"norms": [0.6, 0.8], "displacement": 0.01}
    alerts = judged(Exploding(), SPIKE, *[calm] * apart, SPIKE)
    assert [alert.severity for alert in alerts] == severities


def test_an_explosion_that_goes_on_is_repeated_every_twenty_alarms() -> None:
    assert len(judged(Exploding(), *[SPIKE] * 62)) == 2 + 3


def test_after_a_calm_an_episode_is_over() -> None:
    rule = Exploding()
    calm = {"norms": [0.6, 0.8], "displacement": 0.01}
    alerts = judged(rule, SPIKE, *[calm] * 20, SPIKE)
    assert [alert.severity for alert in alerts] == ["warning", "warning"]
    assert rule.active
    assert judged(rule, *[calm] * 20) == []
    assert not rule.active


def test_a_growing_gradient_that_sweeps_the_weights_away_needs_no_baseline() -> None:
    growing = [{"norms": [6.0 * i, 8.0 * i], "displacement": 11.0 * i} for i in (1, 2, 3)]
    [first, *_] = judged(Exploding(), *growing, calm=0)
    assert (first.step, first.severity) == (1, "critical")
    assert first.evidence["reference"] == pytest.approx(20.0 * 0.05 / 22.0)


def test_a_shrinking_gradient_is_on_its_way_to_large_weights() -> None:
    shrinking = [{"norms": [600.0 / i, 800.0 / i], "displacement": 1000.0 / i} for i in range(1, 100)]
    assert judged(Exploding(), *shrinking, calm=0) == []


def test_a_jump_that_stays_is_the_new_normal() -> None:
    rule = Exploding()
    jump = {"norms": [600.0, 800.0], "displacement": math.nan}
    assert len(judged(rule, *[jump] * 100)) == 1
    assert not rule.active


def test_a_jump_that_somebody_else_clips_is_none() -> None:
    assert judged(Exploding(), {"norms": [600.0, 800.0], "displacement": math.nan, "clip_at": 1.0}) == []


def test_a_jump_a_hundredfold_counts_under_adaptive_optimizers() -> None:
    jump = {"norms": [60.0, 81.0], "displacement": math.nan}
    assert judged(Exploding(), jump, jump) == [], "hard examples"
    [alert] = judged(Exploding(), jump, jump, jump)
    assert (alert.step, alert.severity) == (32, "warning")


def test_alarming_norms_never_enter_the_baseline() -> None:
    rule = Exploding()
    alerts = judged(rule, *[SPIKE] * 100, calm=30)
    assert [alert.evidence["reference"] for alert in alerts] == [pytest.approx(1.0)] * len(alerts)


@given(scale=st.floats(1e-5, 1e5))
def test_it_is_scale_free(scale: float) -> None:
    healthy = {"norms": [0.6 * scale, 0.8 * scale], "displacement": 0.01}
    spike = {"norms": [6.0 * scale, 8.0 * scale], "displacement": 1.0}
    alerts = judged(Exploding(), *[healthy] * 30, spike, calm=0)
    assert [alert.step for alert in alerts] == [30]


@pytest.mark.parametrize("fill", [0.25, 0.5])
def test_a_short_accumulation_window_is_judged_as_if_it_were_whole(fill: float) -> None:
    rule = Exploding()
    short = {"norms": [0.6 * fill, 0.8 * fill], "displacement": 0.0, "fill": fill}
    assert judged(rule, *[short] * 200, calm=30) == []
    assert rule._run.baseline.level == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["factor", "displacement", "jump", "rise", "growth"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "5", True])
def test_a_wrong_threshold_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Exploding(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "kinds"),
    [
        ({"norms": [6e3, 8e3], "displacement": 6.0}, ["exploding"]),  # swept away at its first step
        ({"norms": [6e3, 8e3], "displacement": 1.0}, []),  # a bold first step, and then the logarithm of zero
        ({"norms": [0.6, 0.8], "displacement": 0.01}, []),  # out of a clear sky: a batch, not an explosion
    ],
)
def test_what_is_not_finite_after_an_explosion_is_told_as_one(before: dict[str, Any], kinds: list[str]) -> None:
    alerts = judged(Exploding(), before, {"norms": [math.nan, math.nan], "displacement": math.nan}, calm=0)
    assert [alert.kind for alert in alerts] == kinds
    assert all(math.isfinite(value) for alert in alerts for value in alert.evidence.values())
