"""The conditions under which gradients vanish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import DEPTH, Profile, decay_per_layer, early_to_late
from grad_callbacks.measurement.loss_level import LOSS_LEVEL, LossLevel

PRECISION = float(np.finfo(np.float32).eps)  # the spacing of float32
SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")  # activations


def decays(profile: Profile, ratio: float, at_the_ends: float | None = None) -> bool:
    """True if the early layers' gradient is too small, both at the ends and along the fitted decay per layer.

    Args:
        profile: Gradient size per layer, the first layer first.
        ratio: Early over late gradient; over few layers, where a single unlike one looks like a decay, its square.
        at_the_ends: Early over late, if it is known already.
    """
    ends = early_to_late(profile) if at_the_ends is None else at_the_ends  # NaN for fewer than three
    if len(profile) < DEPTH.fitted:
        return ends < ratio**2
    return ends < ratio and decay_per_layer(profile) ** (len(profile) - 1) < ratio  # the fit takes long


def first_half_is_dead(reading: Reading) -> bool:
    """True if the first half of the weights has no gradient, while something else has."""
    profile = reading.profile
    if not len(profile) or profile[0] != 0:  # nearly always: the rest is slower
        return False
    return bool(reading.norm > 0 and (profile[: (len(profile) + 1) // 2] == 0).all())


def first_layer_is_cut_off(reading: Reading) -> bool:
    """True if the first of three weights or more has no gradient, while something has: a layer after it is dead."""
    return len(reading.profile) >= DEPTH.parts and bool(reading.norm > 0 and reading.profile[0] == 0)


def loss_is_independent(reading: Reading) -> bool:
    """True if the gradient is so small everywhere that the loss does not depend on any weight.

    To first order a change of all weights by their whole norm changes the loss by at most norm times norm. Whatever the
    loss is multiplied with drops out. A loss of zero has nothing to lose. Too small is below the spacing of float32, in
    which the loss itself is rounded.
    """
    if reading.weight_norms is None or not math.isfinite(reading.loss):
        return False
    return is_independent(reading, norm_of_weights(reading))


def norm_of_weights(reading: Reading) -> float:
    """Norm of all weights that have a gradient; NaN if they were not measured."""
    if reading.weight_norms is None:
        return math.nan
    squares = reading.weight_norms[reading.layer_present] ** 2
    total = np.add.reduce(squares)  # as np.nansum, which takes ten times as long
    return math.sqrt(np.nansum(squares) if math.isnan(total) else total)


def is_independent(reading: Reading, weights: float) -> bool:
    """The same for a known norm of all weights."""
    return reading.comparable_norm * weights < PRECISION * abs(reading.loss)  # False for NaN


def early_layers_move_less(reading: Reading, motion: float) -> bool:
    """True if an update changes most of the early layers by less than ``motion`` of their norm."""
    if reading.motion is None or len(reading.profile) < DEPTH.parts:
        return False
    early = reading.motion[reading.profiled][: len(reading.profile) // DEPTH.parts]
    return bool(2 * np.count_nonzero(early < motion) > len(early))  # NaN, not measured yet, is not still


class SpoiltProfile:
    """Sees whether first steps that were too long made the early layers' gradient small.

    Half of the way to ``ratio``, on a scale of logarithms, is enough if it has also come down by as much.

    Args:
        ratio: Early over late gradient from which on it has vanished.
    """

    def __init__(self, ratio: float) -> None:
        self.limit = math.sqrt(ratio)
        self._began = math.nan  # early over late at the first reading

    def is_spoilt(self, profile: Profile, at_the_ends: float | None = None) -> bool:
        """Take in a reading's profile; True if its early part has become small and was not so at the first reading.

        Args:
            profile: Gradient size per layer.
            at_the_ends: Early over late, if it is known already.
        """
        if len(profile) < DEPTH.fitted:
            return False
        if math.isnan(self._began):
            self._began = _decay(profile)
        ends = early_to_late(profile) if at_the_ends is None else at_the_ends
        return ends < self.limit and _decay(profile) < self.limit * min(1.0, self._began)

    @property
    def has_begun(self) -> bool:
        """True once a first profile is known."""
        return not math.isnan(self._began)

    def state(self) -> float:
        """Return what :meth:`restore` needs."""
        return self._began

    def restore(self, state: float) -> None:
        """Continue from :meth:`state`."""
        self._began = state


class Balance:
    """Counts readings with a condition less those without it, from 0 up: it need not hold in every batch.

    Attributes:
        lasting: The count; not below ``patience`` once that was reached, until the balance is back at 0.
    """

    def __init__(self) -> None:
        self.lasting = 0
        self._count = 0

    def take_in(self, holds: bool, patience: int) -> None:
        """Take in a reading."""
        self._count = min(self._count + 1, 2 * patience) if holds else max(self._count - 1, 0)
        is_on = self._count > 0 and self.lasting >= patience
        self.lasting = max(self._count, patience) if is_on else self._count

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"lasting": self.lasting, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.lasting, self._count = state.get("lasting", 0), state.get("count", 0)


class Plateau:
    """Counts readings since the loss last came down, while a condition holds and most is still to be learned.

    Attributes:
        count: So many readings in a row.
    """

    def __init__(self) -> None:
        self.count = 0
        self._since = math.nan  # the level of the loss when they began

    def follow(self, holds: bool, loss: LossLevel) -> None:
        """Take in a reading."""
        level, scale = loss.level, loss.scale
        if not (holds and 2 * level > scale):
            self.count = 0
        elif self.count == 0 or self._since - level > LOSS_LEVEL.learned * scale:
            self.count, self._since = 1, level
        else:
            self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"count": self.count, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self._since = state.get("count", 0), state.get("since", math.nan)


def _decay(profile: Profile) -> float:
    """Early over late, at the ends or along the fit, whichever is more."""
    with np.errstate(over="ignore"):
        fit = float(np.float64(decay_per_layer(profile)) ** (len(profile) - 1))
    return max(early_to_late(profile), fit)
