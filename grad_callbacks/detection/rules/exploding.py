"""Exploding gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.baseline import Baseline
from grad_callbacks.detection.rules.episode import CALM, Episode
from grad_callbacks.events import Alert, Evidence, Severity
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import decay_per_layer, early_to_late
from grad_callbacks.measurement.loss_level import LOSS_LEVEL, LossLevel

SUSTAINED = 3  # readings within which a second alarm tells a diverging run from two bad batches
EARLY = 20  # readings at the start, in which every step's motion is measured; and over which it is remembered
THROWN = 1.8  # times ``displacement``: what first steps move the weights by and a run seldom recovers from
AFTERMATH = 20  # readings in which a jump shows what it has done
MUCH_LEARNED = 0.3  # of the first loss, that had been gained
UNDONE = 0.5  # of what had been gained
NEARLY_LEARNED = 0.1  # of the first loss, to which it had come down
PASSED = 3.0  # times the first loss, below which a jump is over
MIN_DEPTH = 5  # layers over which a growth can be fitted
STUCK = 80  # readings in which a recurrence should have learned something; after 100 it is not initialised again
CHAOTIC = 2.0  # powers of ten by which it would multiply an error over a sequence, as over the layers of fresh weights

# What was seen:
# sweep   before there is a baseline, a step that would leave nothing of the weights
# spike   a gradient far beyond the usual that would throw the weights about
# jump    the same for optimizers that bound their steps
# thrown  the first steps threw the weights about, and the loss left where it began
# shaken  the same by less, as by the first steps of RMSprop, which are ten times as long as the later ones
# cast    the same later on, where no step moves the weights far any more
# lost    the loss is far above where the run began, under gradients far beyond the usual or after it had nearly gone
# undone  a jump has passed, and what was learned before it is gone
# growth  the error grows on its way back through the layers
# stuck   a recurrence whose weights would blow the error up has learned nothing
# fled    one of these a step ago, and now nothing is finite
Sight = Literal["sweep", "spike", "jump", "thrown", "shaken", "cast", "lost", "undone", "growth", "stuck", "fled"]
# How many readings in a row must show it, if not one: a loss that a first step has thrown up may come down by itself.
_LASTING: dict[Sight, int] = {"jump": 2, "thrown": 2, "shaken": 5, "lost": 3, "growth": 3}


class Exploding(Rule):
    """Alerts when a gradient is far beyond the run's normal and would throw the weights about, or has done so.

    A large norm alone is no alarm: a loss multiplied by 1e5 has one, and so has a network that leaves a
    plateau (norms 76 times the usual were seen in runs that learn well). What is alarming:

    * The norm is ``factor`` times the run's own ``Baseline``, and the gradient
      would displace all weights together by ``displacement`` of their norm. Where the loss is known it must have risen
      too, by a tenth of what the run began with and above half of it, unless the displacement is 20 times as large.
    * Before there is a baseline: a gradient that would displace the weights by 20 times ``displacement`` and has
      grown since the last reading. (One that shrinks is on its way to large weights, as in a regression on large
      targets.) At 100 times ``displacement`` it need not grow in a product of three layers or more, nor at 4 times in a
      recurrence, a product of as many as there are steps: such a step leaves nothing of it.
    * Where the displacement cannot be foretold (adaptive optimizers bound their own steps): a sudden jump to
      ``jump`` times the baseline, since it inflates Adam's second moment, which shrinks the steps for hundreds of
      steps to come. Where the loss is known, a third of that is enough, but the loss must jump too, to 10 times the
      largest of the first ones: near a minimum, gradients jump a hundredfold and nothing happens.
    * With them too: first steps that have moved the weights by ``displacement`` of their norm, and a loss and a norm
      ``rise`` and two times those of the first reading; the same later on, against the largest of the first 10 losses
      and the baseline.
    * Or the level of the loss is ``rise`` times the largest of the first 10, the norm twice the baseline, and one of
      the last 20 steps has moved the weights by a fifth of ``displacement``. (Without motion only the loss's scale has
      changed.) The norm may be any where the loss had come down to a tenth of the first one: a run that began with
      large gradients has a high baseline.
    * Or a jump has passed, but within 20 readings half of what had been gained before it is lost, and a step was a
      twentieth of ``displacement`` long. (A single batch can do that to Adam, whose momentum carries it on.)
    * The error, as the biases show it, grows ``growth``-fold from the last layers to the first, along a fitted factor
      per layer, or from the last layer to a recurrent one: the chain rule explodes, whatever the optimizer makes of it.
      A tenth of that is enough where the step would displace the weights by ``displacement``.
    * Nothing has been learned in 80 readings by a plain recurrence whose weights would multiply the error a
      hundredfold over a sequence, were its states small. Its tanh holds the error in, but the states are chaotic.
    * Nothing is finite any more one reading after one of these: the explosion came first.

    The first spike or jump is a ``warning``; a jump must be seen in 2 readings in a row, since adaptive optimizers
    shrug one hard example off. A second one within 3 readings makes it ``critical``: single corrupt batches
    are further apart, a diverging run is not. All others are ``critical`` at once; a loss that has
    left must be seen in 2 or 3 readings in a row, and so must a growth over depth; in 5 after first steps that have
    moved the weights by less than 0.9 of their norm, with which RMSprop often begins: seven runs whose loss came down
    by itself had moved theirs by 0.60 to 0.80, all 27 of the corpus whose loss did not by 1.0 or more.

    Args:
        factor: Multiple of the baseline. 5 is the one of 3, 4 and 5, tried with displacements of 0.3 to 0.5 on 33
            digits set-ups, that raised no alarm on networks leaving a plateau.
        displacement: Share of the weights' norm, counted over the gradient's whole life in the momentum.
        jump: Multiple of the baseline and of the last readings' maximum, for adaptive optimizers. At 100,
            Adam with its default betas shrinks its steps more than threefold.
        rise: Multiple of the loss at the start, for weights that are thrown about.
        growth: Early over late error. The mirror image of the limit for vanishing.
    """

    kind = "exploding"
    order = 20
    colour = "#d1603d"
    is_bounded_by_clipping = True

    def __init__(
        self,
        factor: float = 5.0,
        displacement: float = 0.5,
        jump: float = 100.0,
        rise: float = 1.3,
        growth: float = 1e3,
    ) -> None:
        self.factor = positive("factor", factor)
        self.displacement = positive("displacement", displacement)
        self.jump = positive("jump", jump)
        self.rise = positive("rise", rise)
        self.growth = positive("growth", growth)
        self._baseline = Baseline(limit=self.factor)
        self._course = LossLevel()
        self._episode = Episode()
        self._first: list[float] = []  # norm and loss of the first reading
        self._last_norm = math.inf
        self._moves: list[float] = []  # how far the latest steps have moved all weights
        self._since_jump = math.inf  # readings since the latest jump
        self._jump = [math.nan, math.nan]  # its loss, and the level of the loss before it
        self._count = 0
        self._is_recurrent = False
        self._recurrence = math.nan  # powers of ten, as the first reading has told them
        self._level_before = math.nan  # of the loss
        self._in_a_row = 0  # readings with a sight
        self._was_alarming = False  # the last reading was, or nearly
        self._is_large = False  # its norm was
        self._critical = False

    @property
    def active(self) -> bool:
        """True until 20 readings have passed since the last alarm."""
        return self._episode.active

    @property
    def near(self) -> bool:
        """True when the last reading was alarming, or nearly."""
        return self._was_alarming or self._is_large

    def judge(self, reading: Reading) -> Alert | None:
        """Raise an alert when an episode starts, when it becomes critical, and at every twentieth alarm."""
        if reading.overflow:
            return None
        if not reading.is_finite:
            fled, self._was_alarming = self._was_alarming, False
            return self._alarm(reading, "fled") if fled and not self._episode.active else None
        self._is_large = reading.comparable_norm > self.factor * self._baseline.level
        sight = self._sight(reading)
        self._last_norm = reading.comparable_norm
        # What moves the weights too far is never normal. A jump is, once it has come to stay.
        if sight is None or math.isnan(reading.displacement):
            self._baseline.feed(reading.comparable_norm)
        self._in_a_row = 0 if sight is None else self._in_a_row + 1
        self._was_alarming = sight is not None or self._is_on_the_way(reading)
        if sight is None or self._in_a_row < _LASTING.get(sight, 1):
            self._episode.calm()
            return None
        return self._alarm(reading, sight)

    def _sight(self, reading: Reading) -> Sight | None:
        """Say what is alarming about a finite reading, if anything."""
        norm, level = reading.comparable_norm, self._baseline.level
        self._level_before = self._course.level
        self._course.feed(reading.loss)
        if not self._first:
            self._first = [norm, abs(reading.loss)]
        self._count += 1
        self._is_recurrent = self._is_recurrent or math.isfinite(reading.through_time)
        if self._count == 1:
            self._recurrence = reading.recurrence
        is_early = self._count <= EARLY
        if math.isfinite(reading.moved):
            self._moves = [*self._moves, reading.moved][-EARLY:]
        if math.isnan(level) and self._sweeps_away(reading):
            return "sweep"
        if math.isnan(reading.displacement):
            self._since_jump += 1
            if self._jumps(reading):
                if self._since_jump > AFTERMATH:
                    self._jump = [abs(reading.loss), self._level_before]
                self._since_jump = 0
                return "jump"
        elif norm > self.factor * level and reading.displacement > self.displacement and self._does_harm(reading):
            return "spike"
        if math.isnan(reading.displacement):  # else noisy steps may be long, and what is too long is foretold
            first_norm, first_loss = self._first
            has_left = norm > 2 * first_norm and abs(reading.loss) > self.rise * first_loss
            if is_early and has_left and self._farthest > self.displacement:
                return "thrown" if self._farthest > THROWN * self.displacement else "shaken"
            is_up = norm > 2 * level and reading.loss > self.rise * self._course.scale
            if not is_early and is_up and reading.moved > self.displacement:
                return "cast"
            is_beyond = norm > 2 * level or self._course.best < NEARLY_LEARNED * self._course.start
            if is_beyond and self._course.risen > self.rise and self._farthest > self.displacement / 5:
                return "lost"
            if self._since_jump <= AFTERMATH and self._is_undone():
                return "undone"
        if self._grows(reading):
            return "growth"
        return "stuck" if self._is_stuck() else None

    def _is_stuck(self) -> bool:
        """True once, when a recurrence that would blow the error up should have learned something by now."""
        return self._recurrence > CHAOTIC and self._course.count == STUCK and self._course.gained < LOSS_LEVEL.learned

    def _is_undone(self) -> bool:
        """True if a jump has cost most of what was learned before it."""
        course, before = self._course, self._jump[1]
        was_learned = before < (1 - MUCH_LEARNED) * course.start
        is_back = before + UNDONE * (course.start - before) < course.level < PASSED * course.scale
        return was_learned and is_back and self._farthest > self.displacement / 20  # else the batches are harder

    @property
    def _farthest(self) -> float:
        """The farthest that one of the latest steps has moved all weights."""
        return max(self._moves, default=0.0)

    def _does_harm(self, reading: Reading) -> bool:
        """False for a loss that has not risen, or not by much: a plateau is left, or a minimum is near."""
        if math.isnan(reading.loss) or math.isnan(self._level_before) or reading.displacement > 20 * self.displacement:
            return True
        scale = self._course.scale
        return reading.loss > self._level_before + 0.1 * scale and reading.loss > 0.5 * scale

    def _jumps(self, reading: Reading) -> bool:
        norm = min(reading.comparable_norm, reading.clip_at or math.inf)
        times = norm / max(self._baseline.level, self._baseline.highest)  # NaN before there is a baseline
        if math.isnan(reading.loss):
            return times > self.jump
        return times > self.jump / 3 and abs(reading.loss) > 10 * self._course.scale

    def _sweeps_away(self, reading: Reading) -> bool:
        if reading.displacement > 20 * self.displacement and reading.comparable_norm > self._last_norm:
            return True
        limit = 4.0 if self._is_recurrent else 100.0 if len(reading.profile) >= 3 else math.inf
        return reading.displacement > limit * self.displacement

    def _grows(self, reading: Reading) -> bool:
        error = reading.error_profile
        if self._is_recurrent and len(error) > 1:
            return bool(error[:-1].max() > self.growth * error[-1])
        growth = self.growth / 10 if reading.displacement > self.displacement else self.growth
        if len(error) < MIN_DEPTH or not early_to_late(error) > growth:
            return False  # the fit is dear for many layers
        return decay_per_layer(error) ** (len(error) - 1) > growth

    def _is_on_the_way(self, reading: Reading) -> bool:
        """True for a reading that explains why the next one is not finite any more."""
        reference = self._baseline.level if math.isfinite(self._baseline.level) else self._first[0]
        is_large = reading.comparable_norm > self.factor * reference
        if self._count == 1:  # nothing to compare with: only what would leave little of the weights
            return reading.displacement > 10 * self.displacement
        throws = reading.displacement > self.displacement or abs(reading.loss) > 10 * self._first[1]
        return is_large and throws

    def _alarm(self, reading: Reading, sight: Sight) -> Alert | None:
        since = self._episode.since
        alarms = self._episode.alarm()
        was_critical = self._critical and alarms > 1
        lasts = alarms > 1 and since < SUSTAINED and sight != "jump"  # that may be a new scale of the loss
        self._critical = was_critical or lasts or sight not in ("spike", "jump")
        is_news = alarms == 1 or alarms % CALM == 0 or self._critical > was_critical
        return self._alert(reading, sight) if is_news else None

    def _alert(self, reading: Reading, sight: Sight) -> Alert:
        seen, numbers = self._evidence(reading, sight)
        evidence = Evidence(numbers)
        severity: Severity = "critical" if self._critical else "warning"
        cause, advice = self._guess(reading, sight)
        names = reading.layers.names
        if reading.is_finite:
            share = reading.layer_norms**2 / reading.norm**2
            largest = np.argsort(share)[::-1]
            enough = int(np.searchsorted(np.cumsum(share[largest]), 0.9)) + 1
            names = tuple(names[i] for i in sorted(largest[:enough]))
        return Alert(self.kind, severity, reading.step, names, seen, evidence, cause, advice, reading.optimizer)

    def _evidence(self, reading: Reading, sight: Sight) -> tuple[str, dict[str, float]]:
        level = self._baseline.level
        if sight == "fled":
            norm, seen = self._last_norm, f"after a global norm of {self._last_norm:.3g} nothing is finite any more"
        else:
            norm, seen = reading.norm, f"global norm {reading.norm:.3g}"
        evidence = {"norm": norm, "alarms": float(self._episode.alarms)}
        if math.isfinite(level):
            evidence |= {"reference": level, "ratio": norm / level}
            seen += f", {norm / level:.3g} times the run's usual {level:.3g}"
        if math.isfinite(reading.displacement):
            evidence["displacement"] = reading.displacement
            # The norm at which a gradient would move the weights by a tenth: a reference without a baseline.
            evidence.setdefault("reference", reading.norm * 0.1 / reading.displacement)
            seen += f", which would displace the weights by {reading.displacement:.0%} of their norm"
        if sight == "growth":
            error = reading.error_profile
            evidence |= {"decay_per_layer": decay_per_layer(error), "early_to_late": early_to_late(error)}
            seen += f"; the error grows by a factor of {decay_per_layer(error):.2g} per layer going back"
        if sight in ("thrown", "shaken", "cast"):
            evidence["moved"] = self._farthest
            seen += f"; a step has moved the weights by {self._farthest:.0%} of their norm"
        if sight == "stuck":
            evidence["recurrence"] = self._recurrence
            seen += (
                f"; the loss has not come down in {STUCK} steps, and recurrent weights would multiply an error by "
                f"1e{self._recurrence:.0f} over a sequence"
            )
        if sight == "undone":
            evidence |= {"readings_since_jump": self._since_jump, "jump_loss": self._jump[0]}
            seen += f"; {self._since_jump:.0f} readings ago it jumped, with a loss of {self._jump[0]:.3g}"
        if math.isfinite(reading.loss):
            evidence["loss"] = reading.loss
            if sight in ("thrown", "shaken", "cast", "lost", "undone"):
                seen += f"; the loss has risen to {reading.loss:.3g}"
        return seen, {name: value for name, value in evidence.items() if math.isfinite(value)}

    def _guess(self, reading: Reading, sight: Sight) -> tuple[str, str]:
        """Cause and advice as far as the readings alone can tell."""
        if sight in ("growth", "stuck") or (math.isnan(self._baseline.level) and self._grows(reading)):
            if self._is_recurrent:
                return (
                    "recurrence over many steps",
                    "clip by norm (ClipNorm); use nn.LSTM or nn.GRU; initialise recurrent weights orthogonally",
                )
            return (
                "weights too large",
                "initialise with He or Xavier; scale residual branches; add normalisation",
            )
        if sight == "undone" or (sight == "spike" and not self._critical):
            return (
                "bad batch",
                "clip by norm (ClipNorm) near the usual norm; lower the learning rate if it happens again",
            )
        return (
            "learning rate too high",
            "lower the learning rate (ReduceLR); clip by norm (ClipNorm); warm up; add normalisation",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "baseline": self._baseline.state_dict(),
            "course": self._course.state_dict(),
            "episode": self._episode.state_dict(),
            "first": list(self._first),
            "last_norm": self._last_norm,
            "moves": list(self._moves),
            "since_jump": self._since_jump,
            "jump": list(self._jump),
            "count": self._count,
            "is_recurrent": self._is_recurrent,
            "recurrence": self._recurrence,
            "in_a_row": self._in_a_row,
            "was_alarming": self._was_alarming,
            "is_large": self._is_large,
            "critical": self._critical,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._baseline.load_state_dict(state["baseline"])
        self._course.load_state_dict(state["course"])
        self._episode.load_state_dict(state["episode"])
        self._first, self._last_norm = list(state["first"]), state["last_norm"]
        self._moves, self._count, self._is_recurrent = list(state["moves"]), state["count"], state["is_recurrent"]
        self._recurrence = state["recurrence"]
        self._since_jump, self._jump = state["since_jump"], list(state["jump"])
        self._in_a_row, self._critical = state["in_a_row"], state["critical"]
        self._was_alarming, self._is_large = state["was_alarming"], state["is_large"]
