"""Exploding gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.episode import Episode
from grad_callbacks.detection.rules.exploding_conditions import (
    Condition,
    condition_of,
    grows_over_depth,
    is_harmful,
    is_large,
    leeway,
    readings_needed,
)
from grad_callbacks.detection.rules.exploding_history import RunHistory, is_adaptive
from grad_callbacks.detection.rules.exploding_message import describe, guess, largest_layers
from grad_callbacks.detection.rules.exploding_thresholds import LIMITS
from grad_callbacks.detection.rules.leeway import NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert, Evidence, Severity
from grad_callbacks.measurement import QuietBlock, Reading


class Exploding(Rule):
    """Alerts when a gradient is far beyond the run's normal and its update changes the weights too much.

    A large norm alone is no alarm: a loss multiplied by 1e5 has one, and so has a network that leaves a plateau (norms
    76 times the usual were seen in runs that learn well). Each of these is alarming
    (:class:`~grad_callbacks.detection.rules.exploding_conditions.Condition`); :data:`LIMITS` has all numbers:

    * ``STEP_TOO_LARGE``: the norm is ``factor`` times the usual one, the update would change all weights together by
      ``displacement`` of their norm, and the loss, where it is known, has risen.
    * ``FIRST_STEP_TOO_LARGE``: before there is a usual norm, an update of four times ``displacement`` while the norm
      grows; growing or not in a product of three layers or more, and in a recurrent network, a product of as many
      weights as there are time steps.
    * ``NORM_JUMPED``: adaptive optimizers bound their updates, but a norm of ``jump`` times the usual one inflates
      Adam's second moment, which shrinks its updates for hundreds of steps. The loss, where it is known, is ``rise``
      times the largest of the first ones.
    * ``DIVERGED_EARLY``: among the first 20 updates of an adaptive optimizer one changed the weights by more than
      1.3 times their norm, the loss is ``rise`` times the first one, and the norm has doubled.
    * ``LOSS_DIVERGED``: the level of the loss is ``rise`` times the largest of the first ones, and the norm twice the
      usual one, under an adaptive optimizer whose updates may come to ``displacement`` in 20 readings.
    * ``PROGRESS_LOST``: for 20 readings the loss has been more than half of the way back from its best to where it
      began, with a norm of twice the usual one in half of them, however short the steps, as under Muon.
    * ``SURGED``: the loss has been above its usual level by more than its noise, after an update of 10 times the usual
      length, wherever the loss began (:class:`~grad_callbacks.detection.rules.surge.Surge`).
    * ``GROWS_OVER_DEPTH``: the error grows ``growth``-fold from the last layers to the first, along a fitted factor per
      layer, or from the last layer to a recurrent one.
    * ``RECURRENCE_STUCK``: a plain recurrent network, whose weights would multiply a small error ``growth``-fold over a
      sequence, has learned nothing in 80 readings. Its tanh bounds the error, but the states are chaotic.
    * ``BECAME_NONFINITE``: one of these was true one reading before nothing is finite any more.

    The first ``STEP_TOO_LARGE`` or ``NORM_JUMPED`` is a ``warning``; a second alarm within 3 readings makes it
    ``critical``: single corrupt batches are further apart. All others are ``critical`` at once. What a run may recover
    from by itself must be seen in 3 readings in a row.

    Args:
        factor: Multiple of the usual norm from which on a norm is large.
        displacement: Share of the weights' norm that an update may change, counted over the gradient's whole life in
            the momentum.
        jump: Multiple of the usual norm and of the last norms' maximum, for adaptive optimizers.
        rise: Multiple of the loss at the start.
        growth: Early over late error.

    Raises:
        ValueError: If one of them is not positive.
    """

    kind = "exploding"
    order = 20
    colour = "#d1603d"
    is_bounded_by_clipping = True

    def __init__(
        self,
        factor: float = LIMITS.factor,
        displacement: float = LIMITS.displacement,
        jump: float = LIMITS.jump,
        rise: float = LIMITS.rise,
        growth: float = LIMITS.growth,
    ) -> None:
        self.factor = positive("factor", factor)
        self.displacement = positive("displacement", displacement)
        self.jump = positive("jump", jump)
        self.rise = positive("rise", rise)
        self.growth = positive("growth", growth)
        self.limits = replace(
            LIMITS,
            factor=self.factor,
            displacement=self.displacement,
            jump=self.jump,
            rise=self.rise,
            growth=self.growth,
        )
        self._run = RunHistory(self.limits)
        self._episode = Episode()
        self._in_a_row = 0  # readings that met a condition
        self._was_alarming = False  # the last reading was, or nearly
        self._is_large = False  # its norm was
        self._critical = False
        self._is_tame = False  # the error that was measured last does not grow over depth, however long the step

    @property
    def active(self) -> bool:
        """True until 20 readings have passed since the last alarm."""
        return self._episode.active

    @property
    def near(self) -> bool:
        """True when the last reading was alarming, or nearly."""
        return self._was_alarming or self._is_large or self._run.surge.is_new

    def judge(self, reading: Reading) -> Alert | None:
        """Raise an alert when an episode starts, when it becomes critical, and at every twentieth alarm."""
        self._is_tame = False
        if reading.overflow:
            return None
        if not reading.is_finite:
            explains, self._was_alarming = self._was_alarming, False
            is_new = explains and not self._episode.active
            return self._alarm(reading, Condition.BECAME_NONFINITE) if is_new else None
        condition = self._take_in(reading)
        if condition is None or self._in_a_row < readings_needed(condition):
            self._episode.calm()
            return None
        return self._alarm(reading, condition)

    def leeway(self) -> Leeway:
        """None while anything is wrong, or nearly; else as long as no condition can hold."""
        is_calm = self._is_tame and self._in_a_row == 0 and not self.active and not self.near
        return leeway(self._run) if is_calm else NO_LEEWAY

    def take_in(self, block: QuietBlock) -> None:
        """Make readings of which none is wrong a part of the run so far."""
        self._run.take_in_block(block)
        self._episode.calm(len(block))

    def _take_in(self, reading: Reading) -> Condition | None:
        """Compare a finite reading with the run so far, and make it a part of that."""
        run = self._run
        self._is_large = is_large(reading, run)
        run.take_in(reading)
        condition = condition_of(reading, run)
        # What changes the weights too much is never normal. A jump is, once it has come to stay.
        run.close(reading, is_normal=condition is None or is_adaptive(reading))
        self._in_a_row = 0 if condition is None else self._in_a_row + 1
        self._is_tame = not grows_over_depth(reading, run)
        self._was_alarming = condition is not None or is_harmful(reading, run)
        return condition

    def _alarm(self, reading: Reading, condition: Condition) -> Alert | None:
        """Count an alarm, and return an alert if it is news."""
        since = self._episode.since
        alarms = self._episode.alarm()
        was_critical = self._critical and alarms > 1
        may_be_single = condition in (Condition.STEP_TOO_LARGE, Condition.NORM_JUMPED)
        is_sustained = alarms > 1 and since < SPANS.in_a_row
        # Jumps in a row may be a new scale of the loss.
        is_sustained = is_sustained and condition is not Condition.NORM_JUMPED
        self._critical = was_critical or is_sustained or not may_be_single
        is_news = alarms == 1 or alarms % SPANS.recent == 0 or self._critical > was_critical
        return self._alert(reading, condition) if is_news else None

    def _alert(self, reading: Reading, condition: Condition) -> Alert:
        seen, numbers = describe(reading, condition, self._run, self._episode.alarms)
        severity: Severity = "critical" if self._critical else "warning"
        cause, advice = guess(reading, condition, self._run, self._critical)
        names = largest_layers(reading)
        return Alert(
            self.kind, severity, reading.step, names, seen, Evidence(numbers), cause, advice, reading.optimizer
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            **self._run.state_dict(),
            "episode": self._episode.state_dict(),
            "in_a_row": self._in_a_row,
            "was_alarming": self._was_alarming,
            "is_large": self._is_large,
            "critical": self._critical,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._run.load_state_dict(state)
        self._episode.load_state_dict(state["episode"])
        self._in_a_row, self._critical = state["in_a_row"], state["critical"]
        self._was_alarming, self._is_large = state["was_alarming"], state["is_large"]
        self._is_tame = False  # until the next reading
