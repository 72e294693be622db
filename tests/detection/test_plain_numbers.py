from __future__ import annotations

import math

import pytest

from grad_callbacks.detection.plain_numbers import of_weight_norm, rounded


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2364, "0.24"),
        (1, "1"),
        (7.43, "7.4"),
        (743.0, "740"),
        (2e4, "20000"),
        (1.27e-5, "1.3e-5"),
        (3.14e12, "3.1e12"),
        (-0.051, "-0.051"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_have_two_digits_and_short_exponents(value: float, text: str) -> None:
    assert rounded(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.452, "45% of the weight norm"), (1.0, "1x the weight norm"), (7.4, "7.4x the weight norm")],
)
def test_updates_are_shown_in_percent_or_multiples(share: float, text: str) -> None:
    assert of_weight_norm(share) == text
