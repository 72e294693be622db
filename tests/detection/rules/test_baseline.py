from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from grad_callbacks.detection.rules.baseline import Baseline


def fed(*norms: float) -> Baseline:
    baseline = Baseline(limit=5.0)
    for norm in norms:
        baseline.feed(norm)
    return baseline


def test_there_is_no_level_during_the_warm_up() -> None:
    assert math.isnan(fed(*[1.0] * 9).level)
    assert fed(*[1.0] * 10).level == 1.0


@given(bad=st.lists(st.sampled_from([math.nan, math.inf, 0.0, 1e30]), max_size=9))
def test_non_finite_zero_and_outlying_norms_cannot_poison_it(bad: list[float]) -> None:
    baseline = fed(*[1.0] * 20, *bad, 1.0, *bad)
    assert baseline.level == 1.0


def test_it_never_falls_below_the_early_level() -> None:
    assert fed(*[1.0] * 20, *[1e-6] * 1000).level == 1.0


def test_outliers_in_a_row_are_a_new_normal() -> None:
    assert fed(*[1.0] * 50, *[8.0] * 9).level == 1.0
    assert fed(*[1.0] * 50, *[8.0] * 10).level == 8.0


@given(st.lists(st.floats(1e-6, 1e6), min_size=10, max_size=150), st.integers(0, 150))
def test_it_resumes(norms: list[float], cut: int) -> None:
    whole, resumed = fed(*norms), Baseline(limit=5.0)
    resumed.load_state_dict(fed(*norms[:cut]).state_dict())
    for norm in norms[cut:]:
        resumed.feed(norm)
    assert resumed.state_dict() == whole.state_dict()
