"""SageMaker Debugger's built-in rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import Step, activation_shares, steps


@dataclass(frozen=True)
class SageMakerGradients:
    """The two rules on gradients: VanishingGradient and ExplodingTensor.

    A gradient vanishes when the mean of its absolute entries is below 1e-7, in any tensor. A tensor explodes when it
    has an entry that is not finite; the rule does not say which of the two troubles that is, so both are accepted.

    By default tensors are saved every 500 steps, which most runs here never reach. Every step is looked at instead.

    References:
        Amazon SageMaker Developer Guide, "List of Debugger built-in rules"; defaults as documented there.
    """

    vanishing: float = 1e-7
    name: str = "SageMaker"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Look at every step."""
        return in_order(
            alarm for of_optimizer in steps(recording) for step in of_optimizer for alarm in self._judge(step)
        )

    def _judge(self, step: Step) -> Iterator[Alarm]:
        if not step.reading.is_finite:
            yield Alarm(step.reading.step, ANY, rule="ExplodingTensor")
        if (step.mean_absolute < self.vanishing).any():
            yield Alarm(step.reading.step, ("vanishing",), rule="VanishingGradient")


@dataclass(frozen=True)
class SageMakerAll:
    """The rules on gradients, and those on activations, updates and initialisation.

    * DeadRelu: more than half of a layer's ReLUs are active on less than 1% of the inputs.
    * SaturatedActivation: more than half of a layer's tanh or sigmoid units have inputs where the derivative is below
      1e-7, on all but 1% of the inputs.
    * WeightUpdateRatio: an update is more than 10 times, or less than 1e-8 times, the weights; taken by norms, as they
      were last measured.
    * PoorWeightInitialization: in the first 10 steps the variance of ReLU inputs differs more than tenfold between
      layers, or the 5th and 95th percentile of a gradient are less than 1e-3 apart. It does not say what will follow:
      vanishing and exploding are both accepted. Its third condition, a loss that does not fall for 5 steps, is left
      out, as it says nothing of gradients.

    Activations are looked at every 10th step, by default it would be every 500th. Rules that have no default tensors
    to look at (AllZero, UnchangedTensor) and those about losses are left out.

    References:
        As for :class:`SageMakerGradients`.
    """

    layer_share: float = 0.5
    large_update: float = 10.0
    small_update: float = 1e-8
    variance_ratio: float = 10.0
    gradient_range: float = 1e-3
    initial_steps: int = 10
    name: str = "SageMaker all"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self) | {"vanishing": SageMakerGradients().vanishing}

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Look at every step, and at every activation that was seen."""
        return in_order(
            [
                *SageMakerGradients().alarms(recording),
                *self._activations(recording),
                *(
                    alarm
                    for of_optimizer in steps(recording)
                    for place, step in enumerate(of_optimizer)
                    for alarm in self._judge(step, place)
                ),
            ]
        )

    def _activations(self, recording: Recording) -> Iterator[Alarm]:
        for name, rule in (("inactive", "DeadRelu"), ("beyond", "SaturatedActivation")):
            for step, shares in activation_shares(recording, name):
                if (shares > self.layer_share).any():
                    yield Alarm(step, ("vanishing",), rule=rule)
        rectifiers = np.array([kind == "ReLU" for kind in recording.activation.kinds], dtype=np.bool_)
        for step, variances in activation_shares(recording, "input_variance"):
            known = variances[rectifiers & (variances > 0)]
            if step < self.initial_steps and known.max(initial=0.0) > self.variance_ratio * known.min(initial=np.inf):
                yield Alarm(step, ("vanishing", "exploding"), rule="PoorWeightInitialization")

    def _judge(self, step: Step, place: int) -> Iterator[Alarm]:
        reading = step.reading
        if reading.motion is not None:
            motion = reading.motion[reading.layer_present]
            if (motion > self.large_update).any():
                yield Alarm(reading.step, ("exploding",), rule="WeightUpdateRatio")
            if (motion < self.small_update).any():
                yield Alarm(reading.step, ("vanishing",), rule="WeightUpdateRatio")
        if place < self.initial_steps and (step.middle_range < self.gradient_range).any():
            yield Alarm(reading.step, ("vanishing", "exploding"), rule="PoorWeightInitialization")
