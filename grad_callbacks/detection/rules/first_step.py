"""What the very first reading shows of an initialisation, before anything is lost."""

from __future__ import annotations

import math

import numpy as np

from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import Profile, decay_per_layer, early_to_late

DECAY = 5e-4  # early over late; networks that recover by themselves were seen at 9e-4 and above
STEEP = 1e-6  # the same over three or four layers, where a single unlike layer may look like a decay
OVERSHOOT = 1.0  # of the weights' norm that the first step would move all weights; healthy networks were seen to 0.55
STRIDE = 0.04  # the same for a step that suits; twice the one that is clipped to
FORGETS = 1e-8  # early over late gradient in time: below the precision of float32
GROWTH = 100.0  # late over early error without normalisation; healthy networks of five and more layers have up to 3
MIN_DEPTH = 5
# Error at a recurrent layer over that at the last one: healthy recurrences were seen to 0.7, plain ones that learned in
# spite of it to 6.3, none from 9.7 on. Under SGD a tenth is enough if the first step would move the weights far.
RECURRENT_GROWTH = 10.0
FAR = 0.2  # of the weights' norm


def judge_first_step(reading: Reading) -> Alert | None:
    """Judge the first reading of a run by itself; None if the initialisation shows nothing that it should not.

    Rules wait for several readings, since trained networks have odd moments. Fresh weights have none: their gradient
    decays or grows over depth as mean-field theory says (Schoenholz et al. 2017), at the first step as at the tenth. So
    it is enough here that the error's profile has decayed, both at its ends and along the fit, or grown where there is
    no normalisation or over a sequence, that half of the layers are dead, that a sequence's early steps get nothing,
    that a step would leave nothing of the weights, or that a loss of 16 bits is not finite. Weights of zero are
    somebody's intention (adapters, zero-initialised branches and heads).

    Args:
        reading: The first of a run.
    """
    if reading.fill < 1:
        return None
    if reading.overflow:
        return _overflow(reading)
    if not reading.is_finite or _has_zero_weights(reading):
        return None
    profile, error = reading.profile, reading.error_profile
    if reading.norm > 0 and len(profile) >= 3 and bool((profile[: (len(profile) + 1) // 2] == 0).all()):
        message = f"{int((profile == 0).sum())} of {len(profile)} layers receive no gradient at all"
        return _alert(reading, "vanishing", message, "dead units", profile, {})
    for decayed in (profile, error):
        if _decays(decayed, profile):
            return _alert(reading, "vanishing", _told("shrinks", decayed), _cause(reading), decayed, {})
    if len(error) >= MIN_DEPTH and not reading.layers.are_normalised and _over_all(error) > GROWTH < _ends(error):
        return _alert(reading, "exploding", _told("grows", error), "weights too large", error, {})
    if _explodes_in_time(reading):
        message = (
            f"already at the first step the error at recurrent layers is {_growth(error):.3g} times the last one's"
        )
        told = {"growth": _growth(error), "through_time": reading.through_time}
        return _alert(reading, "exploding", message, "recurrence over many steps", None, told)
    if reading.through_time < FORGETS:
        message = (
            f"already at the first step early steps of a sequence get {reading.through_time:.1e} of the late ones'"
        )
        told = {"through_time": reading.through_time}
        return _alert(reading, "vanishing", message, "recurrence over many steps", None, told)
    if reading.displacement > OVERSHOOT and len(profile) >= 3:
        message = f"the first step would displace the weights by {reading.displacement:.0%} of their norm"
        reference = reading.norm * STRIDE / reading.displacement
        told = {"displacement": reading.displacement, "reference": reference, "loss": reading.loss}
        return _alert(reading, "exploding", message, "learning rate too high", None, told)
    return None


def _decays(decayed: Profile, profile: Profile) -> bool:
    if len(decayed) >= MIN_DEPTH:
        return _ends(decayed) < DECAY and _over_all(decayed) < DECAY
    return 3 <= len(decayed) == len(profile) and max(_ends(decayed), _ends(profile)) < STEEP


def _ends(profile: Profile) -> float:
    return early_to_late(profile)


def _over_all(profile: Profile) -> float:
    with np.errstate(over="ignore"):
        return float(np.float64(decay_per_layer(profile)) ** (len(profile) - 1))


def _explodes_in_time(reading: Reading) -> bool:
    is_recurrent = math.isfinite(reading.through_time) and len(reading.error_profile) > 1
    limit = RECURRENT_GROWTH / 10 if reading.displacement > FAR else RECURRENT_GROWTH
    return is_recurrent and _growth(reading.error_profile) > limit


def _growth(error: Profile) -> float:
    """The largest error before the last layer, relative to the last one's."""
    return float(error[:-1].max() / error[-1]) if error[-1] > 0 else math.inf


def _has_zero_weights(reading: Reading) -> bool:
    norms = reading.weight_norms
    return norms is not None and bool((norms[reading.layers.has_weight & reading.layer_present] == 0).any())


def _overflow(reading: Reading) -> Alert | None:
    if math.isnan(reading.loss) or math.isinf(reading.loss):
        message = "the first loss is not finite in 16 bits: no loss scale can mend that"
        return _alert(reading, "nonfinite", message, "16-bit overflow", None, {})
    return None


def _cause(reading: Reading) -> str:
    saturating = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")
    return (
        "saturated activations"
        if any(name in reading.layers.activations for name in saturating)
        else "weights too small"
    )


def _told(verb: str, profile: Profile) -> str:
    return (
        f"already at the first step the error {verb} by a factor of {decay_per_layer(profile):.2g} per layer going "
        f"back: early layers get {early_to_late(profile):.1e} of the late ones'"
    )


def _alert(
    reading: Reading, kind: str, message: str, cause: str, profile: Profile | None, evidence: dict[str, float]
) -> Alert:
    told = {"norm": reading.norm, "first_reading": 1.0, **evidence}
    if profile is not None:
        told |= {"early_to_late": early_to_late(profile), "decay_per_layer": decay_per_layer(profile)}
    known = {name: float(value) for name, value in told.items() if math.isfinite(value)}
    names = tuple(np.array(reading.layers.names, dtype=object)[reading.profiled])
    advice = "initialise with He (ReLU) or Xavier (tanh); add normalisation or residual connections"
    return Alert(kind, "critical", reading.step, names, message, Evidence(known), cause, advice, reading.optimizer)
