"""Explosions that the loss shows, and spikes that it shows to be harmless."""

from __future__ import annotations

import math
import warnings

import pytest

from grad_callbacks import Exploding
from tests.support.exploding_readings import judged


def test_first_steps_that_throw_the_weights_of_an_adaptive_optimizer_about() -> None:
    start = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 2.0}
    thrown = {"norms": [6e3, 8e3], "displacement": math.nan, "loss": 900.0, "moved": 3.0}
    back = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 3.0, "moved": 0.1}
    [alert] = judged(Exploding(), start, thrown, thrown, thrown, back, calm=0)
    assert (alert.step, alert.severity, alert.evidence["moved"]) == (3, "critical", 3.0)
    assert judged(Exploding(), start, thrown, thrown, back, back, calm=0) == [], "a catapult that comes down by itself"
    assert judged(Exploding(), start, *[{**thrown, "moved": 0.01}] * 5, calm=0) == [], "a new scale of the loss"


def test_first_steps_that_only_shake_the_weights_may_come_down() -> None:
    start = {"norms": [0.6, 0.8], "displacement": math.nan, "loss": 3.0}
    shaken = {"norms": [6.0, 8.0], "displacement": math.nan, "loss": 30.0, "moved": 0.7}
    assert judged(Exploding(), start, *[shaken] * 8, calm=0) == []


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
    ("norm", "loss", "readings", "alerts"),
    [
        (5.0, 1.5, 26, 1),
        (5.0, 1.5, 18, 0),  # a spike that comes back by itself
        (1.0, 1.5, 26, 0),  # other data, or another phase
        (5.0, 0.8, 26, 0),  # most of it is still there
    ],
)
def test_progress_that_is_lost_for_long_with_large_gradients(
    norm: float, loss: float, readings: int, alerts: int
) -> None:
    base = {"norms": [0.6, 0.8], "displacement": math.nan, "moved": 0.01}
    course = [*[{**base, "loss": 2.0}] * 10, *[{**base, "loss": 0.1}] * 60]
    lost = {**base, "norms": [0.6 * norm, 0.8 * norm], "loss": loss}
    found = judged(Exploding(), *course, *[lost] * readings, *[{**base, "loss": 0.1}] * 3, calm=0)
    assert len(found) == alerts
    assert all(alert.severity == "critical" and alert.evidence["best_loss"] == 0.1 for alert in found)


@pytest.mark.parametrize(
    ("loss", "moved", "alerts"),
    [
        (2.1, 0.1, 1),
        (0.3, 0.1, 0),  # shrugged off: the loss has come down again before
        (2.1, 0.001, 0),  # no step has undone it: the batches have become harder
    ],
)
def test_one_jump_that_has_cost_all_that_was_learned(loss: float, moved: float, alerts: int) -> None:
    base = {"norms": [0.6, 0.8], "displacement": math.nan}
    start = [{**base, "loss": 2.0, "moved": 0.005 + 1e-5 * i} for i in range(10)]
    learned = [{**base, "loss": 0.3 + 0.1 * (i % 3), "moved": 0.006 + 1e-5 * i} for i in range(60)]
    jump, after = {**base, "norms": [600.0, 800.0], "loss": 900.0}, {**base, "loss": loss, "moved": moved}
    found = judged(Exploding(), *start, *learned, jump, *[after] * 8, calm=0)
    assert [(alert.severity, alert.cause) for alert in found] == [("critical", "learning rate too high")] * alerts


def test_a_gradient_of_zero_names_all_layers() -> None:
    base = {"norms": [0.6, 0.8], "displacement": math.nan}
    start = [{**base, "loss": 2.0, "moved": 0.005 + 1e-5 * i} for i in range(10)]
    learned = [{**base, "loss": 0.3 + 0.1 * (i % 3), "moved": 0.006 + 1e-5 * i} for i in range(60)]
    dead = {**base, "norms": [0.0, 0.0], "loss": 2.1, "moved": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [alert] = judged(Exploding(), *start, *learned, *[dead] * 8, calm=0)
    assert alert.layers == ("0", "1")


def test_near_a_minimum_a_gradient_may_jump_a_hundredfold_as_long_as_the_loss_stays_small() -> None:
    start = {"norms": [6.0, 8.0], "displacement": math.nan, "loss": 2.0}
    calm = {"norms": [0.06, 0.08], "displacement": math.nan, "loss": 0.01}
    jump = {"norms": [600.0, 810.0], "displacement": math.nan}
    assert judged(Exploding(), *[start] * 5, *[calm] * 95, *[{**jump, "loss": 1.0}] * 3, calm=0) == []
    [alert] = judged(Exploding(), *[start] * 5, *[calm] * 95, *[{**jump, "loss": 300.0}] * 3, calm=0)
    assert (alert.step, alert.severity) == (102, "warning")


@pytest.mark.parametrize(
    ("before", "at", "displacement", "alerts"),
    [
        (8.5, 6.9, 0.7, 0),  # it leaves a plateau: the gradient grows and the loss falls
        (0.01, 0.5, 0.7, 0),  # it is near a minimum, and still is
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
