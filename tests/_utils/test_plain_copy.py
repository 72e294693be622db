"""Copies of plain data."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
import torch

from grad_callbacks._utils.plain_copy import plain_copy


@pytest.mark.parametrize(
    "value", [1, 2.5, "a", None, True, [1.0, 2.0], [[1], [2, [3]]], {"a": [1, {"b": [2]}], 3: (4, [5])}, (1, [2]), {1}]
)
def test_it_is_equal_and_shares_nothing_that_can_be_changed(value: Any) -> None:
    made = plain_copy(value)
    assert made == value
    assert type(made) is type(value)
    assert not _changeable(made) & _changeable(value)


def test_infinite_numbers_stay() -> None:
    first, second = plain_copy([math.inf, math.nan])
    assert first == math.inf
    assert math.isnan(second)


def test_what_is_not_plain_is_copied_too() -> None:
    tensor, numbers = torch.ones(2), deque([1.0], maxlen=3)
    made = plain_copy({"tensor": tensor, "numbers": [numbers]})
    tensor.zero_()
    numbers.append(2.0)
    assert made["tensor"].tolist() == [1.0, 1.0]
    assert made["numbers"] == [deque([1.0], maxlen=3)]


def _changeable(value: Any) -> set[int]:
    """The ids of all lists and dictionaries in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    found = set().union(*map(_changeable, inner)) if inner else set()
    return found | ({id(value)} if isinstance(value, (list, dict, set)) else set())
