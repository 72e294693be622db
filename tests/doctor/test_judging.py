"""When a training needs a cure, and when it is cured."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.judging import gain, is_cured, learned_share, needs_cure, ranked

ILL = Attempt("unchanged", 0, verdict="exploding", kind="exploding", alerts=2, has_critical=True, curve=[2.3, 2.3])
ILL.began = ILL.ended = 2.3
ILL.inspection = Inspection(classes=10)


def attempt(**values: Any) -> Attempt:
    return Attempt(
        **{"name": "a", "seed": 0, "verdict": "healthy", "began": 2.3, "ended": 0.1, "curve": [2.3], **values}
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"ended": 1.0}, False),  # too little learned
        ({"ended": math.nan}, False),
        ({"error": "RuntimeError"}, False),
        ({"began": 1e6, "ended": 2.2}, False),  # from far above chance down to chance
        ({"has_critical": True, "kind": "exploding"}, False),
        (
            {"has_critical": True, "kind": "exploding", "is_bounded": True},
            True,
        ),  # clipped: large gradients are dealt with
        ({"has_critical": True, "kind": "nonfinite", "is_bounded": True}, False),
        ({"has_critical": True, "kind": "nonfinite", "is_guarded": True}, True),
        ({"ended": 1.5, "is_guarded": True, "outcome": "repaired"}, True),  # as before the fault
        ({"verdict": "no progress", "ended": 0.1}, False),
    ],
)
def test_cured_is_healthy_and_learned_and_better(changed: dict[str, Any], expected: bool) -> None:
    assert is_cured(attempt(**changed), ILL) is expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, False),
        ({"verdict": "no progress", "ended": 2.3}, True),
        ({"verdict": "no progress", "began": -0.02, "ended": -0.01}, False),  # a policy gradient's
        ({"verdict": "exploding", "has_critical": True}, True),
        ({"verdict": "exploding", "alerts": 1, "curve": [2.3, 0.1]}, False),  # a single event that did no harm
        ({"verdict": "exploding", "alerts": 1, "curve": [2.3, 0.1], "ended": 2.0}, True),
        ({"error": "RuntimeError"}, True),
    ],
)
def test_only_what_is_ill_needs_a_cure(changed: dict[str, Any], expected: bool) -> None:
    assert needs_cure(attempt(**changed)) is expected


def test_without_a_loss_health_alone_is_asked() -> None:
    silent = Attempt("unchanged", 0, verdict="vanishing", has_critical=True)
    known = {"began": math.nan, "ended": math.nan, "curve": []}
    assert is_cured(attempt(**known), silent)
    assert not is_cured(attempt(**known, verdict="vanishing", has_critical=True), silent)
    assert not is_cured(attempt(**known, is_guarded=True, outcome="unrepaired"), silent)


def test_shares_and_gains() -> None:
    assert learned_share(attempt(ended=0.23), ILL) == pytest.approx(0.9)
    assert math.isnan(learned_share(attempt(ended=-0.1), ILL)), "losses of both signs have no share"
    assert gain(attempt(ended=1.15), ILL) == pytest.approx(0.5)
    assert gain(attempt(), attempt(ended=math.nan)) == math.inf


def test_the_best_comes_first_and_what_is_lost_last() -> None:
    lost, slow, good = attempt(name="lost", ended=math.nan), attempt(name="slow", ended=1.5), attempt(name="good")
    unwell = attempt(name="unwell", ended=0.01, has_critical=True, kind="exploding", verdict="exploding")
    assert [one.name for one in ranked([lost, slow, unwell, good], ILL)] == ["good", "unwell", "slow", "lost"]
