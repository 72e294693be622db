"""What the first reading tells, and what it is silent about."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grad_callbacks.detection.rules.first_step import judge_first_step
from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS
from tests.support.helpers import reading


def of_factor(factor: float, depth: int = 10, **options: object) -> object:
    """The first reading of a stack whose error changes by ``factor`` per layer going back."""
    error = factor ** np.arange(depth)[::-1].astype(float)
    return judge_first_step(reading([1.0] * depth, error=error, weight_norms=[1.0] * depth, **options))  # type: ignore[arg-type]


@given(st.floats(0.6, 1.5))
def test_a_factor_near_one_is_nothing(factor: float) -> None:
    assert of_factor(factor) is None


@pytest.mark.parametrize(("factor", "kind"), [(0.25, "vanishing"), (4.0, "exploding")])
def test_a_decay_and_a_growth_over_depth_are_seen_at_once(factor: float, kind: str) -> None:
    alert = of_factor(factor)
    assert alert is not None
    assert (alert.kind, alert.severity) == (kind, "critical")
    assert alert.evidence["decay_per_layer"] == pytest.approx(factor)


@given(st.floats(1e-6, 1e6))
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    error = scale * 0.25 ** np.arange(10)[::-1].astype(float)
    alert = judge_first_step(reading([scale] * 10, error=error, weight_norms=[1.0] * 10))
    assert alert is not None
    assert alert.evidence["early_to_late"] < LIMITS.ratio


def test_dead_layers_are_seen_and_weights_of_zero_are_somebodys_intention() -> None:
    norms = [0.0, 0.0, 0.0, 1.0]
    alert = judge_first_step(reading(norms))
    assert alert is not None
    assert alert.cause == "dead units"
    assert judge_first_step(reading(norms, weight_norms=[1.0, 1.0, 1.0, 0.0])) is None


def test_a_step_that_would_leave_nothing_of_the_weights_is_seen() -> None:
    alert = judge_first_step(reading([3.0] * 4, displacement=5.0))
    assert alert is not None
    assert alert.evidence["reference"] == pytest.approx(6.0 * 0.05 / 5.0)
    assert judge_first_step(reading([3.0], displacement=5.0)) is None, "one layer finds its size"
    assert judge_first_step(reading([3.0], displacement=5.0, through_time=0.1)) is not None, "but not over time"
    assert judge_first_step(reading([3.0] * 4, displacement=0.5)) is None


def test_overflows_are_the_loss_scalers_unless_the_loss_itself_is_not_finite() -> None:
    norms = np.array([math.inf] * 4)
    assert judge_first_step(reading(norms, overflow=True, loss=2.3)) is None
    alert = judge_first_step(reading(norms, overflow=True, loss=math.nan))
    assert alert is not None
    assert alert.cause == "16-bit overflow"


def test_a_sequence_whose_early_steps_get_nothing_is_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    assert judge_first_step(reading([1.0, 1.0], model=model, through_time=1e-5)) is None
    assert judge_first_step(reading([1.0, 1.0], model=model, through_time=1e-12)) is not None
