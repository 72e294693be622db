from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grad_callbacks.measurement.loss_level import LossLevel


def fed(*losses: float) -> LossLevel:
    course = LossLevel()
    for loss in losses:
        course.feed(loss)
    return course


def test_nothing_is_known_before_the_fifth_loss() -> None:
    course = fed(2.0, 2.0, 2.0, 2.0)
    assert all(math.isnan(value) for value in (course.start, course.level, course.gained, course.risen))


def test_what_is_gained_and_lost_is_relative_to_the_start() -> None:
    course = fed(*[2.0] * 10, *[0.5] * 5, *[40.0] * 5)
    assert (course.start, course.level) == (2.0, 40.0)
    assert course.gained == pytest.approx(0.75)
    assert course.risen == pytest.approx(20.0)


@given(scale=st.floats(1e-10, 1e10), losses=st.lists(st.floats(0.1, 10.0), min_size=5, max_size=40))
def test_the_scale_of_the_loss_does_not_matter(scale: float, losses: list[float]) -> None:
    one, other = fed(*losses), fed(*(scale * loss for loss in losses))
    assert other.gained == pytest.approx(one.gained, rel=1e-6, abs=1e-9)
    assert other.risen == pytest.approx(one.risen, rel=1e-6)


@given(bad=st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=20))
def test_losses_that_are_not_finite_never_enter(bad: list[float]) -> None:
    assert fed(*[2.0] * 10, *bad).state_dict() == fed(*[2.0] * 10).state_dict()


def test_two_bad_batches_are_no_level() -> None:
    assert fed(*[2.0] * 20, 1e9, 1e9).level == 2.0


@given(st.lists(st.floats(-10, 10), max_size=40), st.integers(0, 40))
def test_it_resumes(losses: list[float], cut: int) -> None:
    whole, resumed = fed(*losses), LossLevel()
    resumed.load_state_dict(fed(*losses[:cut]).state_dict())
    for loss in losses[cut:]:
        resumed.feed(loss)
    assert resumed.state_dict() == whole.state_dict()
