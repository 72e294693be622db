"""Each published rule on recordings made by hand: it fires where its source says, and is silent otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from experiments.corpus import Activation, Recording, Segment, Stream
from experiments.scoreboard.detectors import (
    AutoTrainer,
    Detector,
    Megatron,
    OLMo,
    Ours,
    SageMakerAll,
    SageMakerGradients,
    SpikeDetection,
    StaticNorm,
    TheDeepChecker,
    ZClip,
    all_detectors,
    build_rules,
    episodes,
)
from experiments.scoreboard.detectors.base import Alarm
from tests.support.helpers import reading

DEPTH = 3


def recording(
    norms: Sequence[Sequence[float]] | Sequence[float] = (),
    losses: Sequence[float] | None = None,
    quality: float = 0.0,
    beside: dict[str, Any] | None = None,
    activation: Activation | None = None,
    epoch: int = 10,
    **options: Any,
) -> Recording:
    """A run with the given norms of three layers, or global norms, one a step, and losses that by default stay at 1.

    Args:
        norms: Per step one norm, or one per layer.
        losses: Per step.
        quality: Final.
        beside: Constant measures beside the gradients.
        activation: What was seen of activations.
        epoch: Steps an epoch.
        options: Of each reading.
    """
    options.setdefault("motion", [1e-3] * DEPTH)
    table = [[n / math.sqrt(DEPTH)] * DEPTH if np.isscalar(n) else list(n) for n in norms]
    readings = [reading(row, step=i, **options) for i, row in enumerate(table)]
    losses = [1.0] * len(table) if losses is None else list(losses)
    streams = {}
    if readings:
        known = {"mean_absolute": 1e-3, "zero_share": 0.0, "middle_range": 1.0} | (beside or {})
        shape = (len(readings), DEPTH)
        measured = {name: np.broadcast_to(np.array(value, dtype=np.float64), shape) for name, value in known.items()}
        streams = {0: Stream([Segment(readings[0].layers, readings, measured)])}
    return Recording(
        scenario="made",
        seed=0,
        quality=quality,
        streams=streams,
        alerts=[],
        loss_steps=np.arange(len(losses)),
        losses=np.array(losses, dtype=np.float64),
        epochs=list(range(0, len(losses), epoch)),
        activation=activation or Activation(),
        steps=len(losses),
    )


def fired(detector: Detector, made: Recording) -> list[tuple[int, str]]:
    return [(alarm.step, "/".join(alarm.kinds)) for alarm in detector.alarms(made)]


def steady(count: int, level: float = 1.0, noise: float = 0.05) -> list[float]:
    """Norms or losses around a level."""
    return list(level + noise * np.random.default_rng(0).uniform(-1, 1, count))


EITHER = "exploding/nonfinite"


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


# SageMaker Debugger


def test_sagemaker_looks_at_the_mean_absolute_gradient_and_at_finiteness() -> None:
    assert fired(SageMakerGradients(), recording([1.0], beside={"mean_absolute": [1e-3, 0.9e-7, 1e-3]})) == [
        (0, "vanishing")
    ]
    assert fired(SageMakerGradients(), recording([1.0], beside={"mean_absolute": [1e-3, 1.1e-7, 1e-3]})) == []
    assert fired(SageMakerGradients(), recording([1e9, math.inf])) == [(1, EITHER)]
    assert fired(SageMakerGradients(), recording([1.0], beside={"mean_absolute": [math.nan, 1.0, 1.0]})) == []


def seen(**shares: Sequence[float]) -> Activation:
    columns = {name: np.array([values]) for name, values in shares.items()}
    [count] = {values.shape[1] for values in columns.values()}
    return Activation([str(i) for i in range(count)], ["ReLU"] * count, np.array([0]), columns)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (seen(inactive=[0.1, 0.51]), ["DeadRelu"]),
        (seen(inactive=[0.5, 0.5]), []),
        (seen(beyond=[0.51]), ["SaturatedActivation"]),
        (seen(beyond=[0.49]), []),
        (seen(input_variance=[1.0, 11.0]), ["PoorWeightInitialization"]),
        (seen(input_variance=[1.0, 9.0]), []),
    ],
)
def test_sagemaker_looks_at_activations(activation: Activation, expected: list[str]) -> None:
    made = recording([1.0], activation=activation)
    assert [alarm.rule for alarm in SageMakerAll().alarms(made)] == expected


def test_sagemaker_looks_at_updates_and_at_the_first_gradients() -> None:
    assert fired(SageMakerAll(), recording([1.0], motion=[1e-3, 11.0, 1e-3])) == [(0, "exploding")]
    assert fired(SageMakerAll(), recording([1.0], motion=[1e-3, 0.9e-8, 1e-3])) == [(0, "vanishing")]
    narrow = recording([1.0] * 12, beside={"middle_range": [1.0, 0.9e-3, 1.0]})
    assert fired(SageMakerAll(), narrow) == [(step, "vanishing/exploding") for step in range(10)]


# AutoTrainer


@pytest.mark.parametrize(
    ("norms", "zeros", "expected"),
    [
        ([0.9e-4, 0.1, 1.0], 0.0, "vanishing"),
        ([1.1e-4, 0.1, 1.0], 0.0, None),
        ([0.9e-4, 0.1, 0.05], 0.0, None),
        ([71.0, 1.0, 1.0], 0.0, "exploding"),
        ([69.0, 1.0, 1.0], 0.0, None),
        ([1.0, 1.0, 1.0], 0.71, "vanishing"),
        ([1.0, 1.0, 1.0], 0.69, None),
        ([1.0, math.nan, 1.0], 0.0, EITHER),
        ([4000.0, 4000.0, 4000.0], 0.0, None),  # size alone says nothing to it
    ],
)
def test_autotrainer_compares_the_first_with_the_last_layer(
    norms: list[float], zeros: float, expected: str | None
) -> None:
    made = recording([norms], beside={"zero_share": zeros})
    assert fired(AutoTrainer(every_step=True), made) == ([] if expected is None else [(0, expected)])


SOUND, DECAYED = [1.0, 1.0, 1.0], [1e-5, 0.1, 1.0]


def test_autotrainer_checks_after_every_third_epoch_and_waits_for_a_third_of_the_training() -> None:
    # 12 epochs: checked at steps 10, 40, 70 and 100, told from step 36 on.
    assert fired(AutoTrainer(), recording([DECAYED] * 120)) == [(40, "vanishing")]
    assert fired(AutoTrainer(), recording([SOUND] * 10 + [DECAYED] + [SOUND] * 109)) == [(40, "vanishing")]
    assert fired(AutoTrainer(), recording([SOUND] * 41 + [DECAYED] * 20 + [SOUND] * 59)) == []
    assert fired(AutoTrainer(), recording([SOUND] * 10 + [[math.nan] * DEPTH] * 110)) == [(10, EITHER)]
    assert fired(AutoTrainer(), recording([SOUND] * 120, [1.0] * 60 + [math.nan] * 60)) == [(70, EITHER)]


def test_autotrainer_is_silent_once_the_accuracy_is_good() -> None:
    losses = np.linspace(2.0, 0.0, 100)
    # 60% is two thirds of what is reached in the end, and so is assumed at two thirds of the fall.
    late, later = [SOUND] * 65 + [DECAYED] * 35, [SOUND] * 66 + [DECAYED] * 34
    assert fired(AutoTrainer(every_step=True), recording(late, losses, quality=0.9)) == [(65, "vanishing")]
    assert fired(AutoTrainer(every_step=True), recording(later, losses, quality=0.9)) == []
    assert fired(AutoTrainer(every_step=True), recording(later, losses, quality=0.5)) == [(66, "vanishing")]


# TheDeepChecker


def halving(factor: float) -> Any:
    """Mean absolute gradients of one weight that change by a factor a step."""
    values = np.full((11, DEPTH), 1e-2)
    values[:, 0] *= factor ** np.arange(11)
    return values


@pytest.mark.parametrize(
    ("mean_absolute", "expected"),
    [
        (0.9e-6, "vanishing"),
        (1.1e-6, None),
        (1.1e6, "exploding"),
        (halving(0.5), "vanishing"),
        (halving(0.6), None),
        (halving(2.0), "exploding"),
        (halving(1.9), None),
    ],
)
def test_deepchecker_looks_at_size_and_trend_at_every_tenth_step(mean_absolute: Any, expected: str | None) -> None:
    made = recording([1.0] * 11, beside={"mean_absolute": mean_absolute})
    assert fired(TheDeepChecker(), made) == ([] if expected is None else [(10, expected)])


@pytest.mark.parametrize(
    ("motion", "expected"),
    [(0.11, "exploding"), (0.09, None), (1.1e-4, None), (0.9e-4, "vanishing"), (0.0, "vanishing")],
)
def test_deepchecker_wants_updates_between_a_tenth_and_a_ten_thousandth(motion: float, expected: str | None) -> None:
    made = recording([1.0] * 11, motion=[1e-3, motion, 1e-3])
    assert fired(TheDeepChecker(), made) == ([] if expected is None else [(10, expected)])


def test_deepchecker_looks_at_units_and_at_finiteness() -> None:
    later = Activation(["a"], ["Tanh"], np.array([0, 10]), {"saturated": np.array([[0.9], [0.6]])})
    assert fired(TheDeepChecker(), recording(activation=later)) == [(10, "vanishing")]
    assert fired(TheDeepChecker(), recording([1.0, math.nan])) == [(1, "nonfinite")]


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
