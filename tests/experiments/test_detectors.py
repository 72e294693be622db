"""Each rule on global norms and losses, and ours: it fires where its source says, and is silent otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.scoreboard.detectors import (
    Detector,
    Megatron,
    OLMo,
    Ours,
    SpikeDetection,
    StaticNorm,
    ZClip,
    all_detectors,
    build_rules,
    episodes,
)
from experiments.scoreboard.detectors.base import Alarm
from tests.support.made_recordings import DEPTH, EITHER, fired, recording, steady


@pytest.mark.parametrize("detector", all_detectors(), ids=lambda detector: detector.name)
def test_a_steady_run_raises_no_alarm(detector: Detector) -> None:
    made = recording(steady(200, noise=0.01), steady(200))
    assert fired(detector, made) == []


@pytest.mark.parametrize("detector", all_detectors(), ids=lambda detector: detector.name)
def test_a_run_of_which_nothing_is_known_raises_no_alarm(detector: Detector) -> None:
    assert fired(detector, recording()) == []
    assert fired(detector, recording(losses=[math.nan] * 200)) == []


def test_names_are_unique_and_thresholds_are_plain_values() -> None:
    detectors = all_detectors()
    assert len({detector.name for detector in detectors}) == len(detectors)
    for detector in detectors:
        assert all(isinstance(value, (int, float, str)) for value in detector.thresholds.values())


# A fixed limit


def test_the_fixed_limit_looks_at_size_alone() -> None:
    assert fired(StaticNorm(), recording([9e3, 1.1e4, math.inf, math.nan])) == [(1, EITHER), (2, EITHER)]


# ZClip


def test_zclip_alarms_beyond_two_and_a_half_deviations_after_its_warmup() -> None:
    norms = steady(30)
    deviation = np.std(norms[:25])
    assert fired(ZClip(), recording([*norms[:25], 1.0 + 2 * deviation])) == []
    assert fired(ZClip(), recording([*norms[:25], 1.0 + 4 * deviation])) == [(25, EITHER)]
    assert fired(ZClip(), recording([*norms[:24], 100.0])) == [], "still in the warm-up"


def test_zclip_feeds_the_clipped_norm_so_that_a_second_spike_is_seen() -> None:
    assert [step for step, _ in fired(ZClip(), recording([*steady(30), 50.0, 1.0, 50.0]))] == [30, 32]


def test_zclip_is_blind_after_a_nan() -> None:
    assert fired(ZClip(), recording([*steady(30), math.nan, *steady(5), 1000.0])) == []


# OLMo


def test_olmo_needs_half_a_window_and_six_deviations() -> None:
    assert fired(OLMo(), recording([*steady(62), 100.0])) == []
    assert fired(OLMo(), recording([*steady(63), 100.0])) == [(63, EITHER)]
    assert fired(OLMo(), recording(steady(70), [*steady(69), 100.0])) == [(69, EITHER)], "the loss counts too"
    assert fired(OLMo(), recording(steady(70), [*steady(69), 1.1])) == []


def test_olmo_skips_until_a_nan_has_left_the_window() -> None:
    alarms = fired(OLMo(), recording([*steady(100), math.nan, *steady(160)]))
    assert [step for step, _ in alarms] == list(range(100, 100 + 129))


# SpikeDetection


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0] * 20 + [2.9], []),
        ([1.0] * 20 + [3.1], [20]),
        ([1.0] * 20 + [math.nan], [20]),
        ([1.0] * 20 + [3.1, 50.0], [20]),  # the first ends the training
        ([5.0, 1.0], []),
        ([1.0, 9.0], [1]),
    ],
)
def test_spike_detection_compares_with_the_mean_of_ten(losses: list[float], expected: list[int]) -> None:
    assert [step for step, _ in fired(SpikeDetection(), recording(losses=losses))] == expected


# Megatron


def test_megatron_knows_the_largest_of_the_first_hundred() -> None:
    assert fired(Megatron(), recording([*steady(99), 50.0])) == []
    assert fired(Megatron(), recording([1.0] * 100 + [9.9, 10.0])) == [(101, EITHER)]
    assert fired(Megatron(), recording([5.0] + [1.0] * 99 + [40.0, 51.0])) == [(101, EITHER)]
    assert fired(Megatron(), recording([1.0] * 5, [1.0, math.nan, 1.0, 1.0, 1.0])) == [(1, EITHER)]


# Ours, and all


def test_ours_takes_rules_as_plain_values() -> None:
    made = recording([1.0, math.nan])
    assert fired(Ours(), made) == [(1, "nonfinite")]
    assert fired(Ours(rules=({"Vanishing": {}},)), made) == []
    assert Ours(rules=({"NonFinite": {"max_overflows": 3}},)).thresholds["NonFinite.max_overflows"] == 3
    with pytest.raises(ValueError, match="unknown rule 'Vanishng'"):
        build_rules(["Vanishng"])


def test_ours_does_not_report_what_an_explosion_has_left_behind() -> None:
    made = recording([1.0, math.nan] + [[0.0, 0.0, 1.0]] * 60, motion=[0.0, 0.0, 1e-3], weight_norms=[1.0] * DEPTH)
    assert {kind for _, kind in fired(Ours(), made)} == {"nonfinite"}


def test_alarms_that_follow_each_other_are_one_episode() -> None:
    made = [Alarm(step, ("exploding",)) for step in (3, 4, 20, 39, 59, 100)]
    assert [alarm.step for alarm in episodes(made)] == [3, 59, 100]
