"""AutoTrainer's conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, Step, steps

PRIORITY = ("dying", "exploding", "vanishing")


@dataclass(frozen=True)
class AutoTrainer:
    """Alarms on vanishing and exploding gradients and dying ReLUs while the accuracy is poor, and on NaN.

    * vanishing: the first weight's gradient has less than 1e-3 of the last one's norm, and less than 1e-4;
    * exploding: it has more than 70 times the last one's norm, or loss, weights or gradients are not finite (which
      AutoTrainer calls exploding: both kinds are accepted);
    * dying ReLU: at least 70% of all gradient entries are zero. As published, the three are asked in the order dying,
      exploding, vanishing.

    As published a check is made after every third epoch, the first included, and what was found is remembered; it is
    told at the first check, from 30% of the epochs on, at which no accuracy has reached 60% yet (NaN at once). Then the
    training is stopped: there is one alarm at most. With ``every_step`` each step is a check, and 30% are not waited
    for. Accuracy is not recorded in mid-run: it is estimated by the quality that the run has in the end, times the
    share of the loss's whole fall that it has fallen so far.

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
        known, losses = recording.step_losses()
        poor_until = self._poor_until(known, losses, recording.quality)
        lost = set(known[~np.isfinite(losses)].tolist()) if np.isfinite(losses).any() else set()
        alarms = [
            *(self._first(of_optimizer, recording, poor_until) for of_optimizer in steps(recording)),
            self._nan_in_loss(recording, lost),
        ]
        return in_order(alarm for alarm in alarms if alarm is not None)[:1]

    def _first(self, of_optimizer: Sequence[Step], recording: Recording, poor_until: float) -> Alarm | None:
        due = self._due(recording)
        found: list[str] = []
        zeros: FloatArray | None = None  # as last counted, which is not at every step
        for step in of_optimizer:
            number = step.reading.step
            zeros = step.zero_share if zeros is None or np.isfinite(step.zero_share).any() else zeros
            if not self.every_step and number not in due:
                continue
            if self._is_broken(step):
                return Alarm(number, ANY, rule="nonfinite")
            found = self._found(step, zeros) + ([] if self.every_step else found)
            is_told = self.every_step or due[number] >= self.from_share * len(recording.epochs)
            if found and is_told and number < poor_until:
                rule = min(found, key=PRIORITY.index)
                return Alarm(number, ("exploding",) if rule == "exploding" else ("vanishing",), rule=rule)
        return None

    def _nan_in_loss(self, recording: Recording, lost: set[int]) -> Alarm | None:
        due = lost if self.every_step else lost & set(self._due(recording))
        return Alarm(min(due), ANY, rule="loss") if due else None

    def _due(self, recording: Recording) -> dict[int, int]:
        """The steps that are checked, and the number of epochs before each."""
        return {step: i for i, step in enumerate(recording.epochs) if i % self.every_epochs == 1}

    def _poor_until(self, known: Any, losses: FloatArray, quality: float) -> float:
        """The first step at which the estimated accuracy is no longer poor."""
        finite = np.isfinite(losses)
        if not quality >= self.accuracy or not finite.any():
            return math.inf
        first, best = losses[finite][0], losses[finite].min()
        fallen = (first - losses) / (first - best) if best < first else np.ones_like(losses)
        good = np.nonzero(quality * fallen >= self.accuracy)[0]
        return float(known[good[0]]) if len(good) else math.inf

    def _is_broken(self, step: Step) -> bool:
        weight_norms = step.reading.weight_norms
        return not step.reading.is_finite or (weight_norms is not None and bool(np.isinf(weight_norms).any()))

    def _found(self, step: Step, zeros: FloatArray) -> list[str]:
        reading = step.reading
        held = reading.norms[step.weights]
        if len(held) < 2:
            return []
        found = []
        there = reading.present & np.isfinite(zeros)
        sizes = reading.layers.numel[there]
        if sizes.sum() > 0 and np.sum(zeros[there] * sizes) >= self.zero_share * sizes.sum():
            found.append("dying")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = held[0] / held[-1]
        if ratio > self.ratio_high:
            found.append("exploding")
        if ratio < self.ratio_low and held[0] < self.first_low:
            found.append("vanishing")
        return found
