"""Old names of keyword arguments."""

from __future__ import annotations

import inspect

import pytest

from grad_callbacks._utils.renamed import renamed


@renamed(old="new")
def double(new: int = 1) -> int:
    return 2 * new


def test_an_old_name_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="double: old is now called new"):
        assert double(old=3) == 6  # type: ignore[call-arg]


def test_the_new_name_is_taken_without_one(recwarn: pytest.WarningsRecorder) -> None:
    assert double(new=3) == double(3) == 6
    assert not recwarn.list


def test_both_at_once_are_refused() -> None:
    with pytest.raises(TypeError, match="got both new and old"):
        double(new=1, old=2)  # type: ignore[call-arg]


def test_the_signature_is_that_of_the_function() -> None:
    assert list(inspect.signature(double).parameters) == ["new"]
