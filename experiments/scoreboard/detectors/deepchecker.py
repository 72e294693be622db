"""TheDeepChecker's checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, Step, activation_shares, steps


@dataclass(frozen=True)
class TheDeepChecker:
    """Alarms on gradients, updates and activations of any weight, every 10th step from the 10th on.

    * vanishing: the mean absolute gradient is below 1e-6, or has at least halved at each of the last 4 steps (a window
      of 5);
    * exploding: it is above 1e6, or has at least doubled at each of them;
    * updates: log10 of update over weight, averaged since the last check, is above -1 (exploding) or below -4 or the
      weight does not move at all (vanishing); taken by norms of whole layers, as they were last measured;
    * saturation: more than half of a tanh or sigmoid layer's units are saturated by more than 0.85;
    * dead: more than half of another layer's units are below 1e-5 on 95% of the inputs (both: vanishing);
    * a gradient or loss that is not finite, at every step.

    The authors run these checks while a model is fitted to a single batch, before the training. Here they watch the
    training itself, like all others. Their checks of data, initial weights and losses' shape name neither kind of
    trouble and are left out.

    References:
        Ben Braiek & Khomh 2023, "Testing Feedforward Neural Networks Training Programs", TOSEM; the authors' code
        (``OverfitGradientHook``, ``OverfitActivationHook``).
    """

    low: float = 1e-6
    decrease: float = 0.5
    high: float = 1e6
    increase: float = 2.0
    window: int = 5
    slow: float = -4.0
    fast: float = -1.0
    unit_share: float = 0.5
    period: int = 10
    name: str = "TheDeepChecker"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Look at the steps that are due."""
        return in_order(
            [
                *(alarm for of_optimizer in steps(recording) for alarm in self._gradients(of_optimizer)),
                *self._activations(recording),
            ]
        )

    def _gradients(self, of_optimizer: Sequence[Step]) -> Iterator[Alarm]:
        since: list[FloatArray] = []  # updates since the last check
        for place, step in enumerate(of_optimizer):
            reading = step.reading
            if not (reading.is_finite and (math.isfinite(reading.loss) or math.isnan(reading.loss))):
                yield Alarm(reading.step, ("nonfinite",), rule="numerical instability")
                continue
            if reading.motion is not None:
                since.append(np.where(reading.layers.has_weight & reading.layer_present, reading.motion, np.nan))
            if place == 0 or place % self.period:
                continue
            for kind in self._updates(since):
                yield Alarm(reading.step, (kind,), rule="update ratio")
            since = []
            recent = [other.mean_absolute[step.weights] for other in of_optimizer[place - self.window + 1 : place + 1]]
            for kind in self._sizes(np.array(recent)):
                yield Alarm(reading.step, (kind,), rule="gradient")

    def _updates(self, since: Sequence[FloatArray]) -> Iterator[str]:
        if not since:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(np.array(since))
        logs = np.where(np.isneginf(logs), 0.0, logs)  # a step without a change counts as 0, as published
        known = ~np.isnan(logs)
        means = np.where(known, logs, 0.0).sum(axis=0)[known.any(axis=0)] / known.sum(axis=0)[known.any(axis=0)]
        if ((means > self.fast) & (means != 0)).any():
            yield "exploding"
        if ((means < self.slow) | (means == 0)).any():
            yield "vanishing"

    def _sizes(self, recent: FloatArray) -> Iterator[str]:
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = recent[1:] / recent[:-1]
        is_full = len(recent) == self.window
        if ((recent[-1] < self.low) | (is_full & (rates <= self.decrease).all(axis=0))).any():
            yield "vanishing"
        if ((recent[-1] > self.high) | (is_full & (rates >= self.increase).all(axis=0))).any():
            yield "exploding"

    def _activations(self, recording: Recording) -> Iterator[Alarm]:
        for name in ("saturated", "mute"):
            for step, shares in activation_shares(recording, name):
                if step >= self.period and (shares > self.unit_share).any():
                    yield Alarm(step, ("vanishing",), rule=name)
