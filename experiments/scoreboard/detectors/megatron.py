"""Megatron-LM's check for unexpectedly large values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.corpus import Recording
from experiments.scoreboard.detectors.base import ANY, Alarm, in_order
from experiments.scoreboard.detectors.series import FloatArray, norms


@dataclass(frozen=True)
class Megatron:
    """Alarms at ten times the largest of the first 100 losses or norms, and at a loss or norm that is not finite.

    Values that are not finite do not count among the 100, as published.

    References:
        Megatron-LM, ``core/rerun_state_machine.py``: ``is_unexpectedly_large`` with threshold 10 over 100 samples, for
        losses (``check_for_spiky_loss``) and gradients (``check_for_large_grads``), and
        ``check_for_nan_in_loss_and_grad``; every step. The first two are options there, all are on here.
    """

    factor: float = 10.0
    samples: int = 100
    name: str = "Megatron 10x"

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits."""
        return asdict(self)

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Follow the loss of each batch, and the norms of each optimizer."""
        series = [("norm", *of_optimizer) for of_optimizer in norms(recording)]
        if np.isfinite(recording.losses).any():  # else no loss was ever told
            series.append(("loss", recording.loss_steps, recording.losses))
        return in_order(
            Alarm(int(steps[i]), ANY, rule=rule) for rule, steps, values in series for i in self._rejected(values)
        )

    def _rejected(self, values: FloatArray) -> list[int]:
        finite = np.isfinite(values)
        places = np.nonzero(finite)[0]
        largest = np.abs(values[places[: self.samples]]).max(initial=0.0)
        later = places[self.samples :]
        spiky = later[np.abs(values[later]) >= self.factor * largest]
        return sorted([*np.nonzero(~finite)[0].tolist(), *spiky.tolist()])
