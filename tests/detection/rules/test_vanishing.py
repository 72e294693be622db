from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grad_callbacks import Alert, Vanishing
from tests.support.helpers import reading

DECAY = [float(x) for x in 0.2 ** np.arange(8)[::-1]]  # 1.3e-5 ... 1
STILL = [1e-6] * 8
DEEP_IN_TIME = "recurrence over many steps"


def judged(times: int = 30, rule: Vanishing | None = None, **event: Any) -> list[Alert]:
    rule = rule or Vanishing()
    alerts = [rule.judge(reading(step=step, **event)) for step in range(times)]
    return [alert for alert in alerts if alert]


def test_a_decaying_profile_over_layers_that_stand_still_is_named_once() -> None:
    [alert] = judged(norms=DECAY, motion=STILL)
    assert (alert.kind, alert.severity, alert.step) == ("vanishing", "critical", 9)
    assert alert.evidence["decay_per_layer"] == pytest.approx(0.2)
    assert alert.layers == ("0", "1", "2")  # 0.2 ** 4 is above a thousandth
    assert alert.advice


@pytest.mark.parametrize(
    "event",
    [
        {"norms": [1.0] * 8, "motion": STILL},  # flat: a small learning rate, or convergence
        {"norms": [1e-9] * 8, "motion": STILL},  # flat and small: the loss was multiplied
        {"norms": DECAY, "motion": [1e-2] * 8},  # it decays, but Adam moves the early layers all the same
        {"norms": DECAY, "motion": [math.nan] * 8},  # not measured yet
        {"norms": [*[1e-6] * 7, 1.0], "motion": STILL},  # a cliff before a new head, not a decay
        {"norms": DECAY[::-1], "motion": STILL},  # grows going back
        {"norms": [1e-5, 1e-3, 1.0, 10.0], "motion": [1e-9] * 4},  # too few layers to judge a decay
        {"norms": [0.0, 1.0], "motion": [0.0] * 2},  # too few to call them dead
        {"norms": DECAY, "motion": STILL, "fill": 0.5},
        {"norms": DECAY, "motion": STILL, "overflow": True},
        {"norms": [*DECAY[:-1], math.nan], "motion": STILL},
        {"norms": [0.0] * 8, "motion": STILL},  # all gradients are zero: converged
    ],
)
def test_what_is_no_vanishing_gradient(event: dict[str, Any]) -> None:
    assert judged(**event) == []


@settings(deadline=None)
@given(scale=st.floats(1e-5, 1e5))
def test_it_is_scale_free(scale: float) -> None:
    assert len(judged(norms=[scale * norm for norm in DECAY], motion=STILL)) == 1


def test_a_transient_state_is_waited_out() -> None:
    rule = Vanishing()
    for _ in range(5):
        assert judged(9, rule, norms=DECAY, motion=STILL) == []
        assert judged(1, rule, norms=[1.0] * 8, motion=STILL) == []
    assert not rule.active


def test_it_is_active_while_it_lasts() -> None:
    rule = Vanishing()
    judged(12, rule, norms=DECAY, motion=STILL)
    assert rule.active
    judged(1, rule, norms=[1.0] * 8, motion=[1e-2] * 8)
    assert not rule.active


def test_over_few_layers_a_decay_must_be_extreme() -> None:
    assert len(judged(norms=[1e-9, 1e-5, 1.0, 10.0], motion=[1e-9] * 4)) == 1


def test_dead_layers_are_named_as_such() -> None:
    [alert] = judged(norms=[0.0] * 6 + [1.0, 1.0], motion=[0.0] * 8)
    assert "dead" in alert.cause
    assert alert.layers == tuple(str(i) for i in range(6))
    assert all(math.isfinite(value) for value in alert.evidence.values())


@pytest.mark.parametrize(("name", "value"), [("ratio", 0), ("ratio", 1.5), ("motion", -1e-4), ("patience", 0)])
def test_a_wrong_limit_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Vanishing(**{name: value})  # type: ignore[arg-type]


def test_dead_layers_are_seen_when_only_the_last_bias_still_learns() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    [alert] = judged(norms=[0.0] * 5 + [1.0], model=model, motion=[0.0] * 3)
    assert alert.cause == "dead units"


STRONG = [float(x) for x in 0.1 ** np.arange(8)[::-1]]
MOVING = [1e-2] * 8


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        (
            lambda step: 2.3,
            [83],
        ),  # the level of a loss is known from the fifth on; Adam moves what it does not see the sense of
        (lambda step: 2.3 * 0.99**step, []),  # it learns all the same
        (lambda step: math.nan, []),  # nothing is known of the loss
    ],
)
def test_moving_layers_are_no_excuse_while_nothing_is_learned(losses: Callable[[int], float], steps: list[int]) -> None:
    rule = Vanishing()
    alerts = [rule.judge(reading(STRONG, step, motion=MOVING, loss=losses(step))) for step in range(100)]
    assert [alert.step for alert in alerts if alert] == steps


@pytest.mark.parametrize(
    ("through_time", "loss", "steps"),
    [
        (1e-12, lambda step: 1.4, [83]),
        (1e-6, lambda step: 1.4, []),  # float32 still adds it up, and a GRU begins like that
        (1e-12, lambda step: 1.4 * 0.99**step, []),  # what is learned needs no early steps
    ],
)
def test_early_time_steps_that_are_not_heard(
    through_time: float, loss: Callable[[int], float], steps: list[int]
) -> None:
    rule = Vanishing()
    seen = lambda step: through_time if step % 25 == 0 else math.nan  # noqa: E731
    alerts = [rule.judge(reading(step=step, loss=loss(step), through_time=seen(step))) for step in range(100)]
    assert [alert.step for alert in alerts if alert] == steps
    assert all(alert.cause == DEEP_IN_TIME for alert in alerts if alert)


@pytest.mark.parametrize(
    ("norms", "steps"),
    [
        ([0.0, 0.0, 0.01, 0.04, 0.1], [83]),  # the second layer is dead, less than half has no gradient
        ([2e-3, 5e-3, 0.01, 0.1, 1.0], []),  # five sigmoid layers: a plateau that Adam leaves
    ],
)
def test_what_cuts_the_first_layers_off_while_nothing_is_learned(norms: list[float], steps: list[int]) -> None:
    rule = Vanishing()
    alerts = [rule.judge(reading(norms, step, motion=[1e-2] * 5, loss=2.3)) for step in range(100)]
    assert [alert.step for alert in alerts if alert] == steps


@pytest.mark.parametrize(
    ("norms", "losses", "steps"),
    [
        (DECAY, lambda step: 4.0 if step < 5 else 2.8, [86]),  # the head has learned how frequent the classes are
        (DECAY, lambda step: 4.0 * 0.997**step, []),  # slow, but it learns
        (DECAY, lambda step: 4.0 if step < 5 else 1.6, []),  # more than a head can do
        ([1.0] * 8, lambda step: 4.0 if step < 5 else 2.8, []),  # a noise floor
    ],
)
def test_what_the_last_layers_can_do_alone_is_no_excuse(
    norms: list[float], losses: Callable[[int], float], steps: list[int]
) -> None:
    rule = Vanishing(ratio=1e-3)
    alerts = [rule.judge(reading(norms, step, motion=MOVING, loss=losses(step))) for step in range(200)]
    assert [alert.step for alert in alerts if alert] == steps


def test_activations_are_worth_watching_before_the_alert() -> None:
    rule = Vanishing()
    near = []
    for step in range(12):
        rule.judge(reading(DECAY, step, motion=STILL))
        near.append(rule.near)
    assert near == [False] * 4 + [True] * 5 + [False] * 3


FLAT = [1.0] * 8
SUNK = [float(x) for x in 0.3 ** np.arange(8)[::-1]]  # 2e-4 ... 1


@pytest.mark.parametrize(
    ("before", "after", "loss", "steps"),
    [
        (FLAT, SUNK, 3.0, [13]),  # the level of a loss is known from the fifth on
        (FLAT, SUNK, 1.0, []),  # most has been learned in spite of it
        (FLAT, [max(0.04, norm) for norm in SUNK], 3.0, []),  # not so far
        (SUNK, SUNK, 3.0, []),  # the weights were made so
        (FLAT[:4], [1e-5, 0.01, 0.1, 1.0], 3.0, []),  # too few layers to judge a decay
    ],
)
def test_a_profile_that_the_first_steps_have_spoilt(
    before: list[float], after: list[float], loss: float, steps: list[int]
) -> None:
    rule, moving = Vanishing(), [1e-2] * len(before)
    alerts = [
        rule.judge(reading(before if step < 3 else after, step, motion=moving, loss=4.0 if step < 3 else loss))
        for step in range(40)
    ]
    assert [alert.step for alert in alerts if alert] == steps


def test_what_a_profile_began_with_is_remembered_over_a_checkpoint() -> None:
    rule, resumed = Vanishing(), Vanishing()
    for step in range(8):
        rule.judge(reading(FLAT if step < 3 else SUNK, step, motion=[1e-2] * 8, loss=3.0))
    resumed.load_state_dict(rule.state_dict())
    alerts = [resumed.judge(reading(SUNK, step, motion=[1e-2] * 8, loss=3.0)) for step in range(8, 20)]
    assert [alert.step for alert in alerts if alert] == [13]
