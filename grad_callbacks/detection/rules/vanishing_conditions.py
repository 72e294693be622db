"""The conditions under which gradients vanish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS, VanishingThresholds
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import Profile, decay_per_layer, early_to_late
from grad_callbacks.measurement.loss_level import LossLevel

SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")  # activations


def decays(profile: Profile, limits: VanishingThresholds, power: float = 1.0, at_the_ends: float | None = None) -> bool:
    """True if the early layers' gradient is too small, both at the ends and along the fitted decay per layer.

    Args:
        profile: Gradient size per layer, the first layer first.
        limits: Thresholds of the rule.
        power: Exponent applied to ``ratio``.
        at_the_ends: Early over late, if it is known already.
    """
    limit = _limit(len(profile), limits, power)
    if not (early_to_late(profile) if at_the_ends is None else at_the_ends) < limit:  # NaN for fewer than three
        return False  # the fit takes long for many layers
    return decay_per_layer(profile) ** (len(profile) - 1) < limit


def _limit(layers: int, limits: VanishingThresholds, power: float) -> float:
    return limits.ratio**power if layers >= limits.fitted_layers else limits.ratio**2


def most_at_the_ends(layers: int, limits: VanishingThresholds) -> float:
    """Early over late gradient from which on nothing has decayed, by any of the conditions.

    Args:
        layers: In the profile.
        limits: Thresholds of the rule.
    """
    powers = (1.0, limits.stalled_power, limits.slow_power)
    return max(limits.spoilt_ratio, LIMITS.spoilt_ratio, *(_limit(layers, limits, power) for power in powers))


def first_half_is_dead(reading: Reading) -> bool:
    """True if the first half of the weights has no gradient, while something else has."""
    profile = reading.profile
    if not len(profile) or profile[0] != 0:  # nearly always: the rest is slower
        return False
    return bool(reading.norm > 0 and (profile[: (len(profile) + 1) // 2] == 0).all())


def first_layer_is_cut_off(reading: Reading) -> bool:
    """True if the first of three weights or more has no gradient, while something has: a layer after it is dead."""
    return len(reading.profile) >= LIMITS.early_part and bool(reading.norm > 0 and reading.profile[0] == 0)


def loss_is_independent(reading: Reading, limits: VanishingThresholds) -> bool:
    """True if the gradient is so small everywhere that the loss does not depend on any weight.

    To first order a change of all weights by their whole norm changes the loss by at most norm times norm. Whatever the
    loss is multiplied with drops out. A loss of zero has nothing to lose.
    """
    if reading.weight_norms is None or not math.isfinite(reading.loss):
        return False
    return is_independent(reading, norm_of_weights(reading), limits)


def norm_of_weights(reading: Reading) -> float:
    """Norm of all weights that have a gradient; NaN if they were not measured."""
    if reading.weight_norms is None:
        return math.nan
    squares = reading.weight_norms[reading.layer_present] ** 2
    total = np.add.reduce(squares)  # as np.nansum, which takes ten times as long
    return math.sqrt(np.nansum(squares) if math.isnan(total) else total)


def is_independent(reading: Reading, weights: float, limits: VanishingThresholds) -> bool:
    """The same for a known norm of all weights."""
    return reading.comparable_norm * weights < limits.independence * abs(reading.loss)  # False for NaN


def early_layers_move_less(reading: Reading, motion: float) -> bool:
    """True if an update changes most of the early layers by less than ``motion`` of their norm."""
    if reading.motion is None or len(reading.profile) < LIMITS.early_part:
        return False
    early = reading.motion[reading.profiled][: len(reading.profile) // LIMITS.early_part]
    return bool(2 * np.count_nonzero(early < motion) > len(early))  # NaN, not measured yet, is not still


class SpoiltProfile:
    """Sees whether first steps that were too long made the early layers' gradient small."""

    def __init__(self) -> None:
        self._began = math.nan  # early over late at the first reading

    def is_spoilt(self, profile: Profile, at_the_ends: float | None = None) -> bool:
        """Take in a reading's profile; True if its early part has become small and was not so at the first reading.

        Args:
            profile: Gradient size per layer.
            at_the_ends: Early over late, if it is known already.
        """
        if len(profile) < LIMITS.fitted_layers:
            return False
        if math.isnan(self._began):
            self._began = _decay(profile)
        limit = min(LIMITS.spoilt_ratio, self._began / LIMITS.spoilt_fall)
        ends = early_to_late(profile) if at_the_ends is None else at_the_ends
        return ends < LIMITS.spoilt_ratio and _decay(profile) < limit

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
        if not (holds and level > LIMITS.much_left * scale):
            self.count = 0
        elif self.count == 0 or self._since - level > LIMITS.nothing_learned * scale:
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
