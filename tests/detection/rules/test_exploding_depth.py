"""Errors that grow over depth or through a recurrence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grad_callbacks import Alert, Exploding
from tests.support.exploding_readings import judged
from tests.support.helpers import reading


@pytest.mark.parametrize(("displacement", "steps"), [(2.1, [1]), (1.9, [])])
def test_in_a_recurrence_a_first_step_need_not_be_so_long(displacement: float, steps: list[int]) -> None:
    first = {"norms": [6.0, 8.0], "displacement": displacement, "through_time": 0.1}
    assert [alert.step for alert in judged(Exploding(), first, first, calm=0)] == steps


def layered(errors: list[float]) -> dict[str, Any]:
    """Readings whose error has these sizes from the first layer to the last, and whose weights show none of it."""
    return {"norms": [1.0] * len(errors), "error": np.array(errors), "displacement": math.nan}


@pytest.mark.parametrize(("layers", "steps"), [(3, [1]), (2, [])])
def test_a_step_that_leaves_nothing_of_a_product_of_weights_needs_no_second_look(layers: int, steps: list[int]) -> None:
    alerts = judged(Exploding(), *[{"norms": [1e6] * layers, "displacement": 2.1}] * 2, calm=0)
    assert [alert.step for alert in alerts] == steps


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


def test_a_learning_rate_of_zero_hides_no_growth() -> None:
    growing = {**layered([4.0**i for i in range(8)][::-1]), "displacement": 0.0}
    [alert] = judged(Exploding(), *[growing] * 5, calm=0)
    assert alert.evidence["displacement"] == 0.0
    assert "reference" not in alert.evidence


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
