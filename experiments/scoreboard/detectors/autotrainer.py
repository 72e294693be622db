"""AutoTrainer's conditions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, Step, steps


@dataclass(frozen=True)
class AutoTrainer:
    """Alarms on vanishing and exploding gradients and dying ReLUs while the accuracy is poor, and on NaN.

    * vanishing: the first weight's gradient has less than 1e-3 of the last one's norm, and less than 1e-4;
    * exploding: it has more than 70 times the last one's norm, or loss, weights or gradients are not finite (which
      AutoTrainer calls exploding: both kinds are accepted);
    * dying ReLU: at least 70% of all gradient entries are zero. As published, the three are asked in the order dying,
      exploding, vanishing.

    As published a check is made on the first batch of every third epoch, from 30% of the training on, and only while
    no epoch's accuracy has reached 60%. ``every_step`` looks at every step from the first instead, still only while the
    accuracy is poor. Accuracy is not recorded in mid-run: it is estimated by the quality that the run has in the end,
    times the share of the loss's whole fall that it has fallen so far.

    References:
        Zhang et al. 2021, "AUTOTRAINER: An Automatic DNN Training Problem Detection and Repair System", ICSE; defaults
        of the authors' code: beta_1 1e-3, beta_2 1e-4, beta_3 70, gamma 0.7, Theta 0.6.
    """

    ratio_low: float = 1e-3
    first_low: float = 1e-4
    ratio_high: float = 70.0
    zero_share: float = 0.7
    accuracy: float = 0.6
    every_epochs: int = 3
    from_share: float = 0.3
    every_step: bool = False

    @property
    def name(self) -> str:
        """Tells the schedules apart."""
        return "AutoTrainer often" if self.every_step else "AutoTrainer"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Look at the steps that are due."""
        return in_order(self._all(recording))

    def _all(self, recording: Recording) -> Iterator[Alarm]:
        due = None if self.every_step else self._due(recording)
        steps_known, losses = recording.step_losses()
        poor_until = self._poor_until(steps_known, losses, recording.quality)
        for of_optimizer in steps(recording):
            for step in of_optimizer:
                if due is None or step.reading.step in due:
                    kinds = self._judge(step, step.reading.step < poor_until)
                    if kinds:
                        yield Alarm(step.reading.step, kinds, rule=kinds[0])
        if np.isfinite(losses).any():
            for step_number in steps_known[~np.isfinite(losses)]:
                if due is None or step_number in due:
                    yield Alarm(int(step_number), ANY, rule="loss")

    def _due(self, recording: Recording) -> set[int]:
        first = self.from_share * len(recording.epochs)
        return {step for i, step in enumerate(recording.epochs) if i % self.every_epochs == 0 and i >= first}

    def _poor_until(self, known: Any, losses: FloatArray, quality: float) -> float:
        """The first step at which the estimated accuracy is no longer poor."""
        finite = np.isfinite(losses)
        if not quality >= self.accuracy or not finite.any():
            return math.inf
        first, best = losses[finite][0], losses[finite].min()
        fallen = (first - losses) / (first - best) if best < first else np.ones_like(losses)
        good = np.nonzero(quality * fallen >= self.accuracy)[0]
        return float(known[good[0]]) if len(good) else math.inf

    def _judge(self, step: Step, is_poor: bool) -> tuple[str, ...]:
        reading = step.reading
        weights_lost = reading.weight_norms is not None and np.isinf(reading.weight_norms).any()
        if not reading.is_finite or weights_lost:
            return ANY
        held = reading.norms[step.weights]
        if not is_poor or len(held) < 2:
            return ()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = held[0] / held[-1]
        there = reading.present & np.isfinite(step.zero_share)
        sizes = reading.layers.numel[there]
        if sizes.sum() > 0 and np.sum(step.zero_share[there] * sizes) >= self.zero_share * sizes.sum():
            return ("vanishing",)
        if ratio > self.ratio_high:
            return ("exploding",)
        return ("vanishing",) if ratio < self.ratio_low and held[0] < self.first_low else ()
