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

SUSTAINED = 3  # readings within which a second alarm tells a diverging run from two bad batches


class Exploding:
    """Alerts when a gradient is far beyond the run's normal and would throw the weights about.

    A large norm alone is no alarm: a loss multiplied by 1e5 has one, and so has a network that leaves a
    plateau (norms 76 times the usual were seen in runs that learn well). Both conditions must hold:

    * the norm is ``factor`` times the run's own :class:`~grad_callbacks.rules.baseline.Baseline`, and
    * the gradient would displace all weights together by ``displacement`` of their norm.

    Before there is a baseline, in the first readings, a gradient that would displace the weights by 20 times
    ``displacement`` and has grown since the last reading is an explosion: nothing of the weights would be left.
    (One that shrinks is on its way to large weights, as in a regression on large targets.)

    Where the displacement cannot be foretold (adaptive optimizers bound their own steps), only a sudden jump to
    ``jump`` times the baseline counts: it inflates Adam's second moment, which shrinks the steps for hundreds of
    steps to come.

    The first alarm is a ``warning``. A second one within 3 readings makes it ``critical``: single corrupt batches
    are further apart, a diverging run is not.

    Args:
        factor: Multiple of the baseline. 5 is the one of 3, 4 and 5, tried with displacements of 0.3 to 0.5 on 33
            digits set-ups, that raised no alarm on networks leaving a plateau.
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
        self._last_norm = math.inf
        self._critical = False

    @property
    def active(self) -> bool:
        """True until 20 readings have passed since the last alarm."""
        return self._episode.active

    def judge(self, reading: Reading) -> Alert | None:
        """Raise an alert when an episode starts, when it becomes critical, and at every twentieth alarm."""
        if not reading.is_finite or reading.overflow:
            return None
        sweeps_away = self._sweeps_away(reading)
        self._last_norm = reading.comparable_norm
        alarming = sweeps_away or self._is_alarming(reading)
        # What moves the weights too far is never normal. A jump is, once it has come to stay.
        if not alarming or math.isnan(reading.displacement):
            self._baseline.feed(reading.comparable_norm)
        if not alarming:
            self._episode.calm()
            return None
        since = self._episode.since
        alarms = self._episode.alarm()
        was_critical = self._critical and alarms > 1
        self._critical = was_critical or sweeps_away or (alarms > 1 and since < SUSTAINED)
        is_news = alarms == 1 or alarms % CALM == 0 or self._critical > was_critical
        return self._alert(reading) if is_news else None

    def _sweeps_away(self, reading: Reading) -> bool:
        is_early = math.isnan(self._baseline.level)
        return is_early and reading.displacement > 20 * self.displacement and reading.comparable_norm > self._last_norm

    def _is_alarming(self, reading: Reading) -> bool:
        level = self._baseline.level
        if math.isnan(reading.displacement):
            norm = min(reading.comparable_norm, reading.clip_at or math.inf)
            return norm > self.jump * max(level, self._baseline.highest)
        return reading.comparable_norm > self.factor * level and reading.displacement > self.displacement

    def _alert(self, reading: Reading) -> Alert:
        level = self._baseline.level
        evidence = {"norm": reading.norm, "alarms": float(self._episode.alarms)}
        seen = f"global norm {reading.norm:.3g}"
        if not math.isnan(level):
            evidence |= {"reference": level, "ratio": reading.norm / level}
            seen += f" is {reading.norm / level:.3g} times the run's usual {level:.3g}"
        if not math.isnan(reading.displacement):
            evidence["displacement"] = reading.displacement
            # The norm at which a gradient would move the weights by a tenth: a reference without a baseline.
            evidence.setdefault("reference", reading.norm * 0.1 / reading.displacement)
            seen += f" and would displace the weights by {reading.displacement:.0%} of their norm"
        severity: Severity = "critical" if self._critical else "warning"
        cause, advice = self._diagnosis(level)
        share = reading.layer_norms**2 / reading.norm**2
        largest = np.argsort(share)[::-1]
        enough = int(np.searchsorted(np.cumsum(share[largest]), 0.9)) + 1
        layers = tuple(reading.layers.names[i] for i in sorted(largest[:enough]))
        return Alert(self.kind, severity, reading.step, layers, seen, evidence, cause, advice, reading.optimizer)

    def _diagnosis(self, level: float) -> tuple[str, str]:
        if math.isnan(level):
            return (
                "weights too large for their fan-in, unscaled residual branches or targets, or a learning rate too "
                "high from the start",
                "initialise with He or Xavier; scale targets and residual branches; lower the learning rate",
            )
        if not self._critical:
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
        return {
            "baseline": self._baseline.state_dict(),
            "episode": self._episode.state_dict(),
            "last_norm": self._last_norm,
            "critical": self._critical,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._baseline.load_state_dict(state["baseline"])
        self._episode.load_state_dict(state["episode"])
        self._last_norm, self._critical = state["last_norm"], state["critical"]
