"""A surge: long updates and a loss that rises with them, below the first loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from grad_callbacks import Alert, Exploding
from grad_callbacks.detection.rules.spans import SPANS
from tests.support.helpers import reading

NOISE = 0.1 * np.random.default_rng(0).standard_normal(400)


def falling(step: int) -> float:
    """Like a language model's: it begins at its maximum, and has noise."""
    return float(2.4 + 2.0 * 0.97**step + NOISE[step])


def judged(
    loss: Callable[[int], float],
    moved: Callable[[int], float],
    steps: int = 320,
    displacement: float = math.nan,
    rule: Exploding | None = None,
) -> list[Alert]:
    rule = rule or Exploding()
    found = []
    for step in range(steps):
        norms = [1.0 + 0.1 * float(NOISE[step])] * 3
        found.append(rule.judge(reading(norms, step, loss=loss(step), moved=moved(step), displacement=displacement)))
    return [alert for alert in found if alert is not None]


def surging(step: int) -> float:
    return falling(step) + (0.7 if step >= 250 else 0.0)


def far(step: int) -> float:
    return 0.1 if 250 <= step < 270 else 0.0025 * (1 + 1e-3 * step)


def usual(step: int) -> float:
    return 0.0025 * (1 + 1e-3 * step)


def test_a_loss_that_rises_with_long_updates_is_seen_below_the_first_loss() -> None:
    [alert] = judged(surging, far, 280)
    assert (alert.kind, alert.severity, alert.cause) == ("exploding", "critical", "learning rate too high")
    assert 250 + SPANS.in_a_row <= alert.step <= 250 + 3 * SPANS.in_a_row
    assert alert.evidence["motion"] == pytest.approx(0.1 / 0.0031, rel=0.1)
    assert "times as long as usual" in alert.message


@pytest.mark.parametrize(
    ("loss", "moved"),
    [
        (falling, far),  # a restarted schedule: the loss does not mind
        (surging, usual),  # harder data
        (lambda step: falling(step) + (0.7 if step in (250, 251) else 0.0), far),  # a spike that comes back
        (lambda step: 2.4 + float(NOISE[step]), lambda step: 1e-4 * (1 + step)),  # a warm-up
        (surging, lambda step: 1e-9 * (step % 2)),  # every second step is skipped
    ],
)
def test_one_without_the_other_is_nothing(loss: Callable[[int], float], moved: Callable[[int], float]) -> None:
    assert judged(loss, moved) == []


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    assert len(judged(lambda step: scale * surging(step), far, 280)) == 1


def test_where_the_step_follows_from_the_gradient_it_is_judged_before_it_is_taken() -> None:
    assert judged(surging, far, 280, displacement=0.01) == []


def test_motion_is_measured_while_the_loss_is_newly_up() -> None:
    rule = Exploding()
    judged(surging, usual, 249, rule=rule)
    assert not rule.near
    for step in range(249, 256):
        rule.judge(reading([1.0] * 3, step, loss=surging(step), moved=usual(step), displacement=math.nan))
    assert rule.near
    for step in range(256, 256 + SPANS.recent):
        rule.judge(reading([1.0] * 3, step, loss=surging(step), moved=usual(step), displacement=math.nan))
    assert not rule.near, "only for a while: measuring costs time"


def test_it_goes_on_from_a_checkpoint() -> None:
    first, second = Exploding(), Exploding()
    judged(surging, far, 253, rule=first)
    second.load_state_dict(first.state_dict())
    found = [
        [
            rule.judge(reading([1.0] * 3, s, loss=surging(s), moved=far(s), displacement=math.nan))
            for s in range(253, 265)
        ]
        for rule in (first, second)
    ]
    assert [alert and alert.step for alert in found[0]] == [alert and alert.step for alert in found[1]]
    assert any(found[0])


def test_one_in_the_warm_up_is_seen_as_soon_as_there_are_twenty_losses() -> None:
    def loss(step: int) -> float:
        return falling(step) + (3.0 if step >= 25 else 0.0)

    def moved(step: int) -> float:
        return 0.1 if 25 <= step < 45 else 1e-4 * (1 + step)

    [alert] = judged(loss, moved, 40)
    assert (alert.severity, alert.cause) == ("critical", "learning rate too high")
    assert alert.step <= 25 + 3 * SPANS.in_a_row
