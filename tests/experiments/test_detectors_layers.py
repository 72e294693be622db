"""Each published rule on the numbers of single layers: it fires where its source says, and is silent otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from experiments.corpus import Activation
from experiments.scoreboard.detectors import (
    AutoTrainer,
    SageMakerAll,
    SageMakerGradients,
    TheDeepChecker,
)
from tests.support.made_recordings import DEPTH, EITHER, fired, recording

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
