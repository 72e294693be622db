"""Vanishing gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks._utils.validation import at_least, fraction
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import Profile, decay_per_layer, early_to_late
from grad_callbacks.measurement.loss_level import LossLevel

_SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")

MIN_DEPTH = 5
NOTHING_LEARNED = 0.05  # of the loss at the start: what a head learns by its bias alone
LONG = 5  # times the patience: a stalled loss must last so much longer than early layers that stand still
IDLE = 10  # the same where the last layers have learned something, or the shape is that of a plateau
SLOW = 4  # the same where, besides, early layers move by less than 5 times what counts as standing still
NEARLY = 0.9  # power of the ratio that is enough for that, twice 1e-3, and
SLUGGISH = 5.0  # times the motion: five sigmoid layers that left their plateau moved by 50 times it
SUNKEN = 5e-3  # early over late where the first steps have spoilt it; of 414 healthy runs none was there for three
FALL = 50.0  # times what it began with, that it has sunk by
MUCH_LEFT = 0.5  # of the loss at the start: a loss below has been learned by more than the last layers


class Vanishing(Rule):
    """Alerts when the gradient dies out on its way back to the early layers, or steps, and nothing is learned there.

    The size of a gradient says nothing (a loss multiplied by 1e-5 has a small one), its profile over depth
    does. Both conditions must hold for ``patience`` readings in a row:

    * shape: the early layers' gradient is below ``ratio`` of the late layers', both at the ends and along
      the fitted decay per layer, in the weights or in the error that the biases show; or the first half of
      the layers has no gradient at all (dead units);
    * motion: the early layers move by less than ``motion`` of their weights a step.

    Adaptive optimizers move weights whose gradients are noise. So it is enough too that for 5 times ``patience``
    readings the loss has come down by less than 5% of where it began, while the early layers' gradient is below
    ``ratio`` to the power of 1.5 (networks of five sigmoid layers begin at ``ratio`` and leave their plateau), or the
    first layer has none at all, or the gradient dies out over the steps of a sequence, below ``through_time`` of the
    late steps'. And it is enough that for 10 times ``patience`` readings the early layers' gradient is below ``ratio``
    while the loss stays above half of where it began and does not come down by 5% of that: the last layers have learned
    what they can do alone. Where the early layers hardly move either, by less than 5 times ``motion``, 4 times
    ``patience`` are enough for that, and twice ``ratio``.

    First steps that are too long make a gradient die out which the fresh weights let through, as those of Adam without
    a warm-up in a transformer with its normalisation behind the branches (Liu et al. 2020, "Understanding the
    Difficulty of Training Transformers"). So it is enough that for ``patience`` readings the early layers' gradient is
    below 5e-3, a fiftieth of what it began with at most, and the loss above half of where it began.

    A decay is judged from five layers with weights on (embeddings not counted), since over fewer a single unlike layer
    looks like one; over three and four it must be below the square of ``ratio``. Dead units are judged from three.

    Args:
        ratio: Early over late gradient. 1e-3 is AutoTrainer's limit (Zhang et al. 2021, ICSE, sec. III).
        motion: Update ratio of the early layers. 1e-4 is TheDeepChecker's lower limit (Ben Braiek & Khomh
            2023, TOSEM): at this rate a thousand steps move a weight by a tenth at most.
        patience: Readings in a row. Zero-initialised blocks and adapters pass within a few.
        through_time: Early over late gradient in time. Below float32's precision of 1e-7 the early steps' share is lost
            when it is added to the late ones'. (A GRU that began at 5e-6 was seen to learn after 150 steps.)
    """

    kind = "vanishing"
    order = 10
    colour = "#6d5a9c"
    stops_learning = True
    may_follow_another = True

    def __init__(
        self, ratio: float = 1e-3, motion: float = 1e-4, patience: int = 10, through_time: float = 1e-8
    ) -> None:
        self.ratio = fraction("ratio", ratio)
        self.motion = fraction("motion", motion)
        self.patience = at_least("patience", patience, 1)
        self.through_time = fraction("through_time", through_time)
        self._course = LossLevel()
        self._still = 0  # readings in a row with the shape, over early layers that stand still
        self._stalled = 0  # readings in a row with the shape and nothing learned yet
        self._idle = _Idleness()  # readings in a row with the shape and nothing more learned
        self._slow = _Idleness()  # the same with nearly the shape, over early layers that hardly move
        self._began = math.nan  # early over late at the first reading
        self._sunken = 0  # readings in a row with far less than that
        self._forgotten = 0  # the same as stalled for the shape through time
        self._time = math.nan  # as last measured
        self._told = False

    @property
    def active(self) -> bool:
        """True while the conditions hold."""
        return self._lasting >= self.patience

    @property
    def near(self) -> bool:
        """True when an alert may come soon, so that its causes are worth watching."""
        return not self._told and self._lasting >= (self.patience + 1) // 2

    @property
    def _lasting(self) -> int:
        """Readings for which the conditions have held, counted as fast as those that must hold longest allow."""
        waits = (self._stalled // LONG, self._idle.count // IDLE, self._slow.count // SLOW, self._forgotten // LONG)
        return max(self._still, self._sunken, *waits)

    def judge(self, reading: Reading) -> Alert | None:
        """Raise a critical alert when the conditions have held for long enough."""
        if not reading.is_finite or reading.overflow or reading.fill < 1 or reading.motion is None:
            return None
        self._course.feed(reading.loss)
        if math.isfinite(reading.through_time):
            self._time = reading.through_time
        decays = [p for p in (reading.profile, reading.error_profile) if self._decays(p)]
        has_vanished = bool(decays) or _is_dead(reading)
        # Known only from the fifth loss on; before that nothing can have been learned.
        has_learned = self._course.gained > NOTHING_LEARNED
        is_blind = math.isnan(reading.loss)
        self._still = self._still + 1 if has_vanished and self._moves_less(reading, self.motion) else 0
        is_cut = _has_no_start(reading) or any(self._decays(profile, 1.5) for profile in decays)
        self._stalled = self._stalled + 1 if is_cut and not has_learned and not is_blind else 0
        self._idle.follow(bool(decays), self._course)
        nearly = any(self._decays(p, NEARLY) for p in (reading.profile, reading.error_profile))
        self._slow.follow(nearly and self._moves_less(reading, SLUGGISH * self.motion), self._course)
        has_sunk = self._has_sunk(reading.profile)
        self._sunken = self._sunken + 1 if has_sunk and self._course.level > MUCH_LEFT * self._course.scale else 0
        forgets = self._time < self.through_time
        self._forgotten = self._forgotten + 1 if forgets and not has_learned and not is_blind else 0
        if not self.active:
            self._told = False
            return None
        if self._told:
            return None
        self._told = True
        through_depth = has_vanished or is_cut or nearly or has_sunk
        return self._alert(reading) if through_depth else self._alert_through_time(reading)

    def _decays(self, profile: Profile, power: float = 1.0) -> bool:
        limit = self.ratio**power if len(profile) >= MIN_DEPTH else self.ratio**2
        if not early_to_late(profile) < limit:  # NaN for fewer than three
            return False  # the fit is dear for many layers
        return decay_per_layer(profile) ** (len(profile) - 1) < limit

    def _has_sunk(self, profile: Profile) -> bool:
        """True if its early part has become small that was not so at the first reading."""
        if len(profile) < MIN_DEPTH:
            return False
        if math.isnan(self._began):
            self._began = _decay(profile)
        return early_to_late(profile) < SUNKEN and _decay(profile) < min(SUNKEN, self._began / FALL)

    def _moves_less(self, reading: Reading, motion: float) -> bool:
        """True if most of the early layers move less than that."""
        if reading.motion is None or len(reading.profile) < 3:
            return False
        early = reading.motion[reading.profiled][: len(reading.profile) // 3]
        return bool(2 * np.count_nonzero(early < motion) > len(early))  # NaN, not measured yet, is not still

    def _alert(self, reading: Reading) -> Alert:
        profile, third = reading.profile, len(reading.profile) // 3
        dead = _is_dead(reading) or _has_no_start(reading)
        # Where the weights' profile is flat the error's is the one that has decayed.
        decayed = profile if self._decays(profile) or dead else reading.error_profile
        early_motion = float(np.median(reading.motion[reading.profiled][:third]))  # type: ignore[index]  # judged above
        evidence = {
            "early_to_late": early_to_late(decayed),
            "decay_per_layer": decay_per_layer(decayed),
            "early_motion": early_motion,
            "norm": reading.norm,
            "depth": float(len(profile)),
        }
        if dead:
            message = f"{int((profile == 0).sum())} of {len(profile)} layers receive no gradient at all"
        else:
            message = (
                f"the gradient shrinks by a factor of {evidence['decay_per_layer']:.2g} per layer going back: early "
                f"layers get {evidence['early_to_late']:.1e} of the late ones' and move by {early_motion:.1e} a step"
            )
        if self._still < self.patience:
            is_new = self._stalled >= LONG * self.patience
            idle = self._course.count if is_new else max(self._idle.count, self._slow.count)
            message += f"; the loss has not come down in {idle} steps"
        faint = profile <= self.ratio * profile.max()
        faint[:third] = True
        names = np.array(reading.layers.names, dtype=object)[reading.profiled][faint]
        return self._told_of(reading, tuple(names), message, evidence, *_guess(reading, dead))

    def _alert_through_time(self, reading: Reading) -> Alert:
        message = (
            f"early steps of a sequence get {self._time:.1e} of the late ones' gradient; "
            f"the loss has not come down in {self._course.count} steps"
        )
        evidence = {"through_time": self._time, "norm": reading.norm}
        cause = "recurrence over many steps"
        advice = "use nn.LSTM or nn.GRU; initialise recurrent weights orthogonally; shorten the sequences"
        return self._told_of(reading, (), message, evidence, cause, advice)

    def _told_of(
        self,
        reading: Reading,
        names: tuple[str, ...],
        message: str,
        evidence: dict[str, float],
        cause: str,
        advice: str,
    ) -> Alert:
        known = Evidence({name: value for name, value in evidence.items() if math.isfinite(value)})
        return Alert(self.kind, "critical", reading.step, names, message, known, cause, advice, reading.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "course": self._course.state_dict(),
            "still": self._still,
            "stalled": self._stalled,
            "idle": self._idle.state_dict(),
            "slow": self._slow.state_dict(),
            "began": self._began,
            "sunken": self._sunken,
            "forgotten": self._forgotten,
            "time": self._time,
            "told": self._told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._course.load_state_dict(state["course"])
        self._still, self._stalled, self._forgotten = state["still"], state["stalled"], state["forgotten"]
        self._idle.load_state_dict(state["idle"])
        self._slow.load_state_dict(state["slow"])
        self._began, self._sunken = state["began"], state["sunken"]
        self._time, self._told = state["time"], state["told"]


class _Idleness:
    """Counts readings since the loss has last come down, while a condition holds and most is still to be learned.

    Attributes:
        count: So many readings in a row.
    """

    def __init__(self) -> None:
        self.count = 0
        self._since = math.nan  # the level of the loss when they began

    def follow(self, holds: bool, course: LossLevel) -> None:
        """Take in a reading."""
        level, scale = course.level, course.scale
        if not (holds and level > MUCH_LEFT * scale):
            self.count = 0
        elif self.count == 0 or self._since - level > NOTHING_LEARNED * scale:
            self.count, self._since = 1, level
        else:
            self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"count": self.count, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self._since = state["count"], state["since"]


def _decay(profile: Profile) -> float:
    """Early over late, at the ends or along the fit, whichever is more."""
    with np.errstate(over="ignore"):
        fit = float(np.float64(decay_per_layer(profile)) ** (len(profile) - 1))
    return max(early_to_late(profile), fit)


def _is_dead(reading: Reading) -> bool:
    """True if the first half of the weights has no gradient, while something else has."""
    profile = reading.profile
    return bool(reading.norm > 0 and len(profile) > 0 and (profile[: (len(profile) + 1) // 2] == 0).all())


def _has_no_start(reading: Reading) -> bool:
    """True if the first of three weights or more has no gradient, while something has: a layer behind it is dead."""
    return len(reading.profile) >= 3 and bool(reading.norm > 0 and reading.profile[0] == 0)


def _guess(reading: Reading, dead: bool) -> tuple[str, str]:
    """Cause and advice as far as the reading alone can tell."""
    if dead:
        return (
            "dead units",
            "lower the learning rate; initialise with He; use LeakyReLU or GELU instead of ReLU",
        )
    structure = "add normalisation (batch norm) or residual connections"
    if any(name in reading.layers.activations for name in _SATURATING):
        return (
            "saturated activations",
            f"use ReLU with He initialisation; {structure}; initialise with larger weights",
        )
    return "weights too small", f"initialise with He (ReLU) or Xavier (tanh); {structure}"
