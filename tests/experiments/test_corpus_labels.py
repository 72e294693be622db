"""Labels of made-up outcomes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from experiments.corpus import Scenario, label_runs, lost_at, onset_of

REFERENCE = {("good", 0): 0.8, ("good", 1): 1.0, ("good", 2): 0.9}  # the median is 0.9


MADE = {
    "good": Scenario("good", reference="good"),
    "bad": Scenario("bad", kinds=("exploding",), reference="good"),
}


@pytest.mark.parametrize(
    ("qualities", "labels"),
    [
        ([0.76, 0.7, 0.1], ["failing"] * 3),
        ([0.84, 0.9, 1.0], ["healthy"] * 3),
        ([math.nan, -math.inf, 0.1], ["failing"] * 3),
        ([0.8, 0.1, 0.1], ["unsettled", "failing", "failing"]),
        ([0.9, 0.1, 0.1], ["unsettled", "failing", "failing"]),
        ([0.9, 0.8, 0.1], ["unsettled"] * 3),
        ([0.9], ["healthy"]),
        ([0.9, 0.1], ["unsettled"] * 2),
    ],
)
def test_runs_are_labelled_by_their_outcome(qualities: list[float], labels: list[str]) -> None:
    made = REFERENCE | {("bad", seed): quality for seed, quality in enumerate(qualities)}
    found = label_runs(MADE, made)
    assert [found.labels["bad", seed] for seed in range(len(qualities))] == labels


def test_a_scenario_that_turns_out_otherwise_than_expected_is_told() -> None:
    assert label_runs(MADE, REFERENCE | {("bad", 0): 0.9}).contradictions == ["bad"]
    assert label_runs(MADE, REFERENCE | {("bad", 0): 0.1}).contradictions == []
    assert label_runs(MADE, {("bad", 0): 0.9}).labels["bad", 0] == "unsettled", "there is nothing to compare with"


FALLING = np.linspace(2.0, 1.0, 50)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (FALLING, None),
        (np.concatenate([FALLING, np.full(50, 2.5)]), 50),
        (np.concatenate([FALLING, np.full(50, np.nan)]), 50),
        (np.concatenate([FALLING, [9.0], FALLING[-20:]]), None),  # one bad batch
        (np.concatenate([FALLING, np.full(30, 2.5), FALLING]), None),  # it comes back
        (np.full(100, 2.0), 0),
        (np.linspace(2.0, 5.0, 100), 0),
        (np.full(100, np.nan), 0),
        (2.0 - 0.05 * (np.arange(100) % 2), 0),  # noise is no learning
    ],
)
def test_the_loss_is_lost_where_it_never_comes_back(losses: Any, expected: int | None) -> None:
    assert lost_at(np.arange(len(losses)), np.asarray(losses, dtype=np.float64)) == expected


def test_the_onset_is_what_the_config_says_or_where_the_loss_was_lost() -> None:
    assert onset_of(Scenario("a", onset=7), lost=50) == 7
    assert onset_of(Scenario("a"), lost=50) == 50
    assert onset_of(Scenario("a"), lost=None) == 0
