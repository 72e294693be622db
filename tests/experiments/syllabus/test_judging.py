"""Whether a claim held."""

from __future__ import annotations

import pytest

from experiments.syllabus.claims import Setting
from experiments.syllabus.judging import judge
from experiments.syllabus.words import number, quality
from tests.experiments.syllabus.made import many

SIGMOID, CURED = Setting("sigmoid"), Setting("sigmoid", ("relu",))
CHAIN, LARGE, RATE = Setting("chain_tenth"), Setting("large_weights"), Setting("high_rate")


@pytest.mark.parametrize(
    ("setting", "found", "held"),
    [
        (SIGMOID, many(SIGMOID, 0.1, 0.1, 0.9), "held"),
        (SIGMOID, many(SIGMOID, 0.1, 0.8, 0.9), "did not hold"),
        (SIGMOID, many(SIGMOID, 0.1, error_ratio=0.1), "did not hold"),
        (CHAIN, many(CHAIN, 0.1, error_ratio=1.001e-50), "held"),
        (CHAIN, many(CHAIN, 0.1, error_ratio=2e-50), "did not hold"),
        (LARGE, many(LARGE, 0.1, error_ratio=1e5), "held"),
        (LARGE, many(LARGE, 0.1, error_ratio=1e-5), "did not hold"),
        (RATE, many(RATE, 0.1, norm_highest=5.0), "held"),
        (RATE, many(RATE, 0.1, nonfinite_step=4), "held"),
        (RATE, many(RATE, 0.1), "did not hold"),
    ],
)
def test_a_cause_holds_if_the_net_is_lost_in_the_way_that_is_said(setting: Setting, found: object, held: str) -> None:
    assert judge(setting, {setting: found}) == held  # type: ignore[dict-item]


@pytest.mark.parametrize(("median", "held"), [(0.95, "held"), (0.6, "in part"), (0.4, "did not hold")])
def test_a_cure_holds_by_its_median_quality(median: float, held: str) -> None:
    results = {SIGMOID: many(SIGMOID, 0.1), CURED: many(CURED, 0.1, median, 0.99)}
    assert judge(CURED, results) == held


def test_numbers_are_short_and_missing_ones_are_a_dash() -> None:
    nan = float("nan")
    assert [number(x) for x in (0.0, 0.1234, 12.0, 1e-50, 2.5e10, nan)] == [
        "0",
        "0.123",
        "12",
        "1.0e-50",
        "2.5e10",
        "–",
    ]
    assert quality(many(SIGMOID, 0.1, 0.5, 0.9)) == "0.50 (0.10–0.90)"
    assert quality(many(SIGMOID, 0.1, 0.1)) == "0.10"
    assert quality(many(SIGMOID, -67.8, -0.001, 0.5)) == "0.00 (<0–0.50)"
    assert quality(None) == "–"
