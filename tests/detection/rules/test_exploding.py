from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grad_callbacks import Alert, Exploding
from tests.support.helpers import reading


def judged(rule: Exploding, *events: dict[str, Any], calm: int = 30) -> list[Alert]:
    """Alerts after ``calm`` healthy readings of norm 1 and then ``events``."""
    healthy = [{"norms": [0.6, 0.8], "displacement": 0.01}] * calm
    alerts = [rule.judge(reading(step=i, **event)) for i, event in enumerate([*healthy, *events])]
    return [alert for alert in alerts if alert is not None]


SPIKE = {"norms": [6.0, 8.0], "displacement": 1.0}


def test_a_spike_that_throws_the_weights_about_is_a_warning_in_its_own_step() -> None:
    [alert] = judged(Exploding(), SPIKE)
    assert (alert.kind, alert.severity, alert.step) == ("exploding", "warning", 30)
    assert alert.evidence["norm"] == pytest.approx(10.0)
    assert alert.evidence["ratio"] == pytest.approx(10.0)
    assert alert.evidence["reference"] == pytest.approx(1.0)
    assert alert.layers == ("0", "1")
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
    assert first.evidence["reference"] == pytest.approx(20.0 * 0.1 / 22.0)


def test_a_shrinking_gradient_is_on_its_way_to_large_weights() -> None:
    shrinking = [{"norms": [600.0 / i, 800.0 / i], "displacement": 1000.0 / i} for i in range(1, 100)]
    assert judged(Exploding(), *shrinking, calm=0) == []


@pytest.mark.parametrize(("displacement", "steps"), [(2.1, [0]), (1.9, [])])
def test_in_a_recurrence_a_first_step_need_not_be_so_long(displacement: float, steps: list[int]) -> None:
    first = {"norms": [6.0, 8.0], "displacement": displacement, "through_time": 0.1}
    assert [alert.step for alert in judged(Exploding(), first, calm=0)] == steps


@pytest.mark.parametrize(("displacement", "steps"), [(0.6, [2]), (0.4, []), (math.nan, [])])
def test_an_error_that_grows_over_depth_and_throws_the_weights_about(displacement: float, steps: list[int]) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)))
    norms = [10 * 500.0 ** (-i / 7) for i in range(8) for _ in ("weight", "bias")]
    event = {"norms": norms, "model": model, "displacement": displacement}
    assert [alert.step for alert in judged(Exploding(), *[event] * 5, calm=0)] == steps


def test_a_jump_that_stays_is_the_new_normal() -> None:
    rule = Exploding()
    jump = {"norms": [600.0, 800.0], "displacement": math.nan}
    assert len(judged(rule, *[jump] * 100)) == 1
    assert not rule.active


def test_a_jump_that_somebody_else_clips_is_none() -> None:
    assert judged(Exploding(), {"norms": [600.0, 800.0], "displacement": math.nan, "clip_at": 1.0}) == []


def test_a_jump_a_hundredfold_counts_under_adaptive_optimizers() -> None:
    jump = {"norms": [60.0, 81.0], "displacement": math.nan}
    assert judged(Exploding(), jump) == [], "one hard example"
    [alert] = judged(Exploding(), jump, jump)
    assert (alert.step, alert.severity) == (31, "warning")


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


def layered(errors: list[float]) -> dict[str, Any]:
    """Readings whose error, as the biases show it, has these sizes from the first layer to the last."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in errors))
    norms = [size for error in errors for size in (1.0, error)]
    return {"model": model, "norms": norms, "displacement": math.nan}


@pytest.mark.parametrize(("layers", "steps"), [(3, [0]), (2, [])])
def test_a_step_that_leaves_nothing_of_a_product_of_weights_needs_no_second_look(layers: int, steps: list[int]) -> None:
    alerts = judged(Exploding(), {"norms": [1e6] * layers, "displacement": 60.0}, calm=0)
    assert [alert.step for alert in alerts] == steps


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


def test_first_steps_that_throw_the_weights_of_an_adaptive_optimizer_about() -> None:
    start = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 2.0}
    thrown = {"norms": [6e3, 8e3], "displacement": math.nan, "loss": 900.0, "moved": 3.0}
    back = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 3.0, "moved": 0.1}
    [alert] = judged(Exploding(), start, thrown, thrown, back, calm=0)
    assert (alert.step, alert.severity, alert.evidence["moved"]) == (2, "critical", 3.0)
    assert judged(Exploding(), start, thrown, back, back, calm=0) == [], "a catapult that comes down by itself"
    assert judged(Exploding(), start, *[{**thrown, "moved": 0.01}] * 5, calm=0) == [], "a new scale of the loss"


@pytest.mark.parametrize(("readings", "alerts"), [(4, 0), (5, 1)])
def test_first_steps_that_only_shake_the_weights_are_given_time_to_come_down(readings: int, alerts: int) -> None:
    start = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 3.0}
    shaken = {"norms": [6.0, 8.0], "displacement": math.nan, "loss": 30.0, "moved": 0.7}
    back = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 3.0, "moved": 0.1}
    found = judged(Exploding(), start, *[shaken] * readings, back, back, calm=0)
    assert [alert.evidence["moved"] for alert in found] == [0.7] * alerts


def test_a_loss_that_is_lost_by_steps_that_get_shorter_as_it_rises() -> None:
    healthy = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 2.0, "moved": 0.01}
    far = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 2.0, "moved": 0.3}
    lost = {"norms": [12.0, 16.0], "displacement": math.nan, "loss": 100.0, "moved": 0.05}
    [alert] = judged(Exploding(), *[healthy] * 30, far, *[lost] * 7, calm=0)
    assert alert.severity == "critical"


@pytest.mark.parametrize(("moved", "alerts"), [(0.2, 1), (0.01, 0)])
def test_a_loss_that_is_lost_while_the_weights_are_thrown_about(moved: float, alerts: int) -> None:
    healthy = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 2.0, "moved": 0.01}
    lost = {"norms": [12.0, 16.0], "displacement": math.nan, "loss": 100.0, "moved": moved}
    assert len(judged(Exploding(), *[healthy] * 30, *[lost] * 8, calm=0)) == alerts


@pytest.mark.parametrize(
    ("learned", "loss", "moved", "alerts"),
    [
        (0.1, 10.0, 0.2, 1),
        (0.5, 10.0, 0.2, 0),  # little had been learned: a rough course
        (0.1, 2.0, 0.2, 0),  # no higher than it began
        (0.1, 10.0, 0.01, 0),  # no step has done that: the loss has another scale
    ],
)
def test_a_loss_that_had_nearly_been_learned_is_lost_whatever_the_norm(
    learned: float, loss: float, moved: float, alerts: int
) -> None:
    base = {"norms": [0.6, 0.8], "displacement": math.nan, "moved": 0.01}
    course = [*[{**base, "loss": 2.0}] * 10, *[{**base, "loss": learned}] * 30]
    assert len(judged(Exploding(), *course, *[{**base, "loss": loss, "moved": moved}] * 8, calm=0)) == alerts


@pytest.mark.parametrize(
    ("after", "alerts"),
    [
        ({"loss": 2.1, "moved": 0.1}, 1),
        ({"loss": 0.3, "moved": 0.1}, 0),  # shrugged off
        ({"loss": 9.0, "moved": 0.09}, 0),  # it is not over yet
        ({"loss": 2.1, "moved": 0.001}, 0),  # no step has undone it: the batches have become harder
    ],
)
def test_one_jump_that_has_cost_all_that_was_learned(after: dict[str, float], alerts: int) -> None:
    base = {"norms": [0.6, 0.8], "displacement": math.nan}
    start, learned = {**base, "loss": 2.0, "moved": 0.005}, {**base, "loss": 0.1, "moved": 0.005}
    jump = {**base, "norms": [600.0, 800.0], "loss": 900.0, "moved": 0.005}
    found = judged(Exploding(), *[start] * 10, *[learned] * 40, jump, *[{**base, **after}] * 8, calm=0)
    assert [(alert.severity, alert.cause) for alert in found] == [("critical", "bad batch")] * alerts
    assert all(alert.evidence["jump_loss"] == 900.0 for alert in found)


def test_near_a_minimum_a_gradient_may_jump_a_hundredfold_as_long_as_the_loss_stays_small() -> None:
    start = {"norms": [6.0, 8.0], "displacement": math.nan, "loss": 2.0}
    calm = {"norms": [0.06, 0.08], "displacement": math.nan, "loss": 0.01}
    jump = {"norms": [600.0, 810.0], "displacement": math.nan}
    assert judged(Exploding(), *[start] * 5, *[calm] * 95, *[{**jump, "loss": 1.0}] * 2, calm=0) == []
    [alert] = judged(Exploding(), *[start] * 5, *[calm] * 95, *[{**jump, "loss": 300.0}] * 2, calm=0)
    assert (alert.step, alert.severity) == (101, "warning")


def test_an_error_that_grows_through_a_recurrent_layer() -> None:
    growing = {**layered([1e5, 1.0]), "through_time": 0.1}
    [alert] = judged(Exploding(), *[growing] * 5, calm=0)
    assert (alert.step, alert.cause) == (2, "recurrence over many steps")
    assert judged(Exploding(), *[layered([1e5, 1.0])] * 5, calm=0) == [], "two layers are no depth"


def test_an_error_that_grows_over_depth_is_told_whatever_the_optimizer_makes_of_it() -> None:
    growing = layered([4.0**i for i in range(8)][::-1])
    alerts = judged(Exploding(), *[growing] * 5, calm=0)
    assert [(alert.step, alert.severity, alert.cause) for alert in alerts] == [(2, "critical", "weights too large")]
    assert alerts[0].evidence["decay_per_layer"] == pytest.approx(4.0)
    for harmless in (layered([1.2**i for i in range(24)][::-1]), layered([4.0**i for i in range(4)][::-1])):
        assert judged(Exploding(), *[harmless] * 5, calm=0) == []


@pytest.mark.parametrize(
    ("before", "at", "displacement", "alerts"),
    [
        (8.5, 6.9, 0.7, 0),  # it leaves a plateau: the gradient grows and the loss falls
        (0.01, 0.5, 0.7, 0),  # it is near a minimum, and still is
        (0.01, 0.5, 12.0, 1),  # such a step does not end near it
        (1.0, 6.0, 0.7, 1),
        (math.nan, math.nan, 0.7, 1),  # nothing is known of the loss
    ],
)
def test_a_spike_does_harm_only_where_the_loss_is_up(
    before: float, at: float, displacement: float, alerts: int
) -> None:
    start = {"norms": [0.6, 0.8], "displacement": 0.01, "loss": before if before > 1 else 4.0}
    calm = {"norms": [0.6, 0.8], "displacement": 0.01, "loss": before}
    spike = {"norms": [6.0, 8.0], "displacement": displacement, "loss": at}
    assert len(judged(Exploding(), *[start] * 10, *[calm] * 20, spike, calm=0)) == alerts


def stuck(recurrence: float, losses: Callable[[int], float]) -> list[Alert]:
    """Alerts of 200 readings of a recurrent net, whose first reading tells what its weights make of an error."""
    rule, alerts = Exploding(), []
    for step in range(200):
        first = {"recurrence": recurrence, "through_time": 0.1} if step == 0 else {}
        alerts.append(rule.judge(reading(step=step, norms=[0.6, 0.8], displacement=0.01, loss=losses(step), **first)))
    return [alert for alert in alerts if alert is not None]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_recurrence_that_would_blow_errors_up_and_learns_nothing_is_told_once(scale: float) -> None:
    [alert] = stuck(4.6, lambda step: scale * (1.4 + 0.05 * math.sin(step)))
    assert (alert.severity, alert.step, alert.cause) == ("critical", 79, "recurrence over many steps")
    assert alert.evidence["recurrence"] == 4.6
    assert "80 steps" in alert.message


@pytest.mark.parametrize(
    ("recurrence", "losses"),
    [
        (1.9, lambda step: 1.4),  # the weights would not blow it up
        (math.nan, lambda step: 1.4),  # gated, or none at all
        (4.6, lambda step: 1.4 * 0.998**step),  # it learns
        (4.6, lambda step: math.nan),  # nobody tells the loss
    ],
)
def test_a_recurrence_that_may_learn_is_left_alone(recurrence: float, losses: Callable[[int], float]) -> None:
    assert stuck(recurrence, losses) == []
