"""The median of the latest numbers."""

from __future__ import annotations

from statistics import median

import hypothesis.strategies as st
import pytest
from hypothesis import given

from grad_callbacks._utils.running_median import RunningMedian

NUMBERS = st.lists(st.floats(min_value=1e-300, max_value=1e300) | st.sampled_from([1.0, 2.0, 2.0]), max_size=60)


@given(first=NUMBERS, later=NUMBERS, size=st.integers(min_value=1, max_value=20))
def test_it_is_that_of_the_standard_library_over_the_window(first: list[float], later: list[float], size: int) -> None:
    window = RunningMedian(size, first)
    for place, number in enumerate(later, start=1):
        window.append(number)
        kept = [*first, *later[:place]][-size:]
        assert list(window) == kept
        assert len(window) == len(kept)
        assert window.median == median(kept)
        assert window.largest_of_last(3) == max(kept[-3:])


def test_there_is_none_of_nothing() -> None:
    with pytest.raises(IndexError):
        _ = RunningMedian(3).median
