from __future__ import annotations

import math

import pytest

from grad_callbacks import NonFinite
from tests.support.helpers import reading

BAD = [1.0, math.nan, 1.0]


def test_the_first_non_finite_gradient_is_critical_and_names_its_layers() -> None:
    rule = NonFinite()
    assert rule.judge(reading(step=0)) is None
    alert = rule.judge(reading(BAD, step=1))
    assert alert is not None
    assert (alert.kind, alert.severity, alert.step, alert.layers) == ("nonfinite", "critical", 1, ("1",))
    assert rule.active


def test_one_alert_an_episode() -> None:
    rule = NonFinite()
    alerts = [rule.judge(reading(BAD if step in (3, 4, 10, 40) else (1.0, 1.0, 1.0), step=step)) for step in range(41)]
    assert [alert.step for alert in alerts if alert] == [3, 40]


def test_a_few_overflows_are_the_loss_scaler_at_work() -> None:
    rule = NonFinite(max_overflows=3)
    for _ in range(5):
        assert [rule.judge(reading(BAD, overflow=True)) for _ in range(3)] == [None] * 3
        assert rule.judge(reading()) is None
    assert not rule.active


def test_overflows_that_do_not_stop_are_named_as_such() -> None:
    rule = NonFinite(max_overflows=3)
    alerts = [rule.judge(reading(BAD, step=step, overflow=True)) for step in range(5)]
    [alert] = [alert for alert in alerts if alert]
    assert alert.step == 3
    assert "overflow" in alert.cause
    assert alert.evidence["overflows_in_a_row"] == 4


def test_weights_that_are_lost_already_are_named() -> None:
    alert = NonFinite().judge(reading(BAD, weight_norms=[1.0, math.nan, 1.0]))
    assert alert is not None
    assert "weights" in alert.cause


@pytest.mark.parametrize(
    ("loss", "is_told", "times", "steps"),
    [
        (math.nan, True, 30, [12]),
        (math.inf, True, 30, [12]),
        (math.nan, True, 9, []),  # it comes back
        (math.nan, False, 30, []),  # nobody tells it at every step
    ],
)
def test_a_loss_that_stays_lost_is_told_though_gradients_are_finite(
    loss: float, is_told: bool, times: int, steps: list[int]
) -> None:
    rule = NonFinite()
    losses = [2.0] * 3 + [loss] * times + [2.0] * 3
    told = [True] * 3 + [is_told] * times + [True] * 3
    alerts = [
        rule.judge(reading(step=step, loss=value, has_loss=known))
        for step, (value, known) in enumerate(zip(losses, told, strict=True))
    ]
    assert [alert.step for alert in alerts if alert] == steps


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_a_wrong_limit_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="max_overflows"):
        NonFinite(max_overflows=value)  # type: ignore[arg-type]
