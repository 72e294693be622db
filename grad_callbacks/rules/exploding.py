"""Exploding gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks.alerts import Alert, Kind, Severity
from grad_callbacks.checks import positive
from grad_callbacks.gradients import Reading
from grad_callbacks.rules.baseline import Baseline
from grad_callbacks.rules.episode import CALM, Episode


class Exploding:
    """Alerts when a gradient is far beyond the run's normal and would throw the weights about.

    A large norm alone is no alarm: a loss multiplied by 1e5 has one, and so has a network that leaves a
    plateau (norms 76 times the usual were seen in runs that learn well). Both conditions must hold:

    * the norm is ``factor`` times the run's own :class:`~grad_callbacks.rules.baseline.Baseline`, and
    * the gradient would displace all weights together by ``displacement`` of their norm.

    Whatever the baseline, a gradient that would displace the weights by 20 times ``displacement`` is an
    explosion: nothing of the weights would be left. Where the displacement cannot be foretold
    (adaptive optimizers bound their own steps), only a sudden jump to ``jump`` times the baseline counts:
    it inflates Adam's second moment, which shrinks the steps for hundreds of steps to come.

    The first alarm is a ``warning``; a second one within 20 readings makes it ``critical``.

    Args:
        factor: Multiple of the baseline. At 5, healthy digits networks stayed below and diverging ones were
            caught 10 to 60 steps before they were lost.
        displacement: Share of the weights' norm, counted over the gradient's whole life in the momentum.
        jump: Multiple of the baseline and of the last readings' maximum, for adaptive optimizers. At 100,
            Adam with its default betas shrinks its steps more than threefold.
    """

    kind: Kind = "exploding"

    def __init__(self, factor: float = 5.0, displacement: float = 0.5, jump: float = 100.0) -> None:
        self.factor = positive("factor", factor)
        self.displacement = positive("displacement", displacement)
        self.jump = positive("jump", jump)
        self._baseline = Baseline(limit=self.factor)
        self._episode = Episode()

    @property
    def active(self) -> bool:
        """True until 20 readings have passed since the last alarm."""
        return self._episode.active

    def judge(self, reading: Reading) -> Alert | None:
        """Raise an alert at the first alarm of an episode, at the second, and at every twentieth after it."""
        if not reading.is_finite or reading.overflow:
            return None
        if not self._is_alarming(reading):
            self._episode.calm()
            if not reading.partial:
                self._baseline.feed(reading.norm)
            return None
        alarms = self._episode.alarm()
        return self._alert(reading, alarms) if alarms == 1 or alarms % CALM == 2 else None

    def _is_alarming(self, reading: Reading) -> bool:
        if math.isnan(reading.displacement):
            return reading.norm > self.jump * max(self._baseline.level, self._baseline.highest)
        if self._sweeps_away(reading):
            return True
        return reading.norm > self.factor * self._baseline.level and reading.displacement > self.displacement

    def _sweeps_away(self, reading: Reading) -> bool:
        return reading.displacement > 20 * self.displacement  # never so where it is NaN

    def _alert(self, reading: Reading, alarms: int) -> Alert:
        level = self._baseline.level
        evidence = {"norm": reading.norm, "alarms": float(alarms)}
        seen = f"global norm {reading.norm:.3g}"
        if not math.isnan(level):
            evidence |= {"reference": level, "ratio": reading.norm / level}
            seen += f" is {reading.norm / level:.3g} times the run's usual {level:.3g}"
        if not math.isnan(reading.displacement):
            evidence["displacement"] = reading.displacement
            # The norm at which a gradient would move the weights by a tenth: a reference without a baseline.
            evidence.setdefault("reference", reading.norm * 0.1 / reading.displacement)
            seen += f" and would displace the weights by {reading.displacement:.0%} of their norm"
        severity: Severity = "critical" if alarms > 1 or self._sweeps_away(reading) else "warning"
        cause, advice = self._diagnosis(alarms, level)
        share = reading.layer_norms**2 / reading.norm**2
        largest = np.argsort(share)[::-1]
        enough = int(np.searchsorted(np.cumsum(share[largest]), 0.9)) + 1
        layers = tuple(reading.layers.names[i] for i in sorted(largest[:enough]))
        return Alert(self.kind, severity, reading.step, layers, seen, evidence, cause, advice, reading.optimizer)

    @staticmethod
    def _diagnosis(alarms: int, level: float) -> tuple[str, str]:
        if math.isnan(level):
            return (
                "weights too large for their fan-in, unscaled residual branches or targets, or a learning rate too "
                "high from the start",
                "initialise with He or Xavier; scale targets and residual branches; lower the learning rate",
            )
        if alarms == 1:
            return (
                "a corrupt or outlying batch, or the first sign of a learning rate too high for the curvature",
                "clip by norm (ClipNorm) near the usual norm; lower the learning rate if it happens again",
            )
        return (
            "learning rate too high for the curvature",
            "lower the learning rate (ReduceLR); clip by norm (ClipNorm); warm up; add normalisation",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {"baseline": self._baseline.state_dict(), "episode": self._episode.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._baseline.load_state_dict(state["baseline"])
        self._episode.load_state_dict(state["episode"])
