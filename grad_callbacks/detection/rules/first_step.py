"""What the first reading of a run shows of its initialisation, before anything is lost."""

from __future__ import annotations

import math

import numpy as np

from grad_callbacks.detection.plain_numbers import of_weight_norm, rounded
from grad_callbacks.detection.rules.exploding_thresholds import LIMITS as EXPLODING
from grad_callbacks.detection.rules.vanishing_conditions import decays, first_half_is_dead
from grad_callbacks.detection.rules.vanishing_message import describe_dead, has_saturating_activations
from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS as VANISHING
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import DEPTH, Profile, decay_per_layer, early_to_late

# Causes that say nothing of the initialisation. A guard that can do something about them does; else whether such a run
# fails is left to later readings, unless the first update alone is too large.
NOT_OF_THE_START = ("inputs too large", "targets or loss too large", "bad batch")


def judge_first_step(reading: Reading) -> Alert | None:
    """Judge the first reading of a run by itself; None if its initialisation is as it should be.

    Rules wait for several readings, since trained networks have odd moments. Fresh weights have none: their gradient
    decays or grows over depth as mean-field theory says (Schoenholz et al. 2017), at the first step as at the tenth. So
    it is enough here that

    * the error has decayed over depth, both at the ends and along the fit, or half of the layers have no gradient;
    * the error has grown over depth without normalisation;
    * the early steps of a sequence get no gradient;
    * an update would leave nothing of the weights;
    * a loss in 16 bits is not finite.

    Weights that are all zero are intended (adapters, zero-initialised branches and heads) and not judged.

    Args:
        reading: The first of a run.
    """
    if reading.fill < 1:
        return None
    if reading.overflow:
        return _overflow(reading)
    if not reading.is_finite or _has_zero_weights(reading):
        return None
    return _over_depth(reading) or _over_time(reading) or _too_large(reading)


def _over_depth(reading: Reading) -> Alert | None:
    profile, error = reading.profile, reading.error_profile
    if len(profile) >= DEPTH.parts and first_half_is_dead(reading):
        return _alert(reading, "vanishing", describe_dead(reading), "dead units", profile, {})
    for decayed in (profile, error):
        if decays(decayed, VANISHING.ratio):
            cause = "saturated activations" if has_saturating_activations(reading) else "weights too small"
            message = (
                f"at the first step the gradient shrinks to {rounded(decay_per_layer(decayed))} of its size per layer "
                f"toward the input; the early layers get {rounded(early_to_late(decayed))} of the late layers' gradient"
            )
            return _alert(reading, "vanishing", message, cause, decayed, {})
    if _grows(reading):
        message = (
            f"at the first step the error grows {rounded(decay_per_layer(error))}-fold per layer toward the input; at "
            f"the early layers it is {rounded(early_to_late(error))} times that at the late ones"
        )
        return _alert(reading, "exploding", message, "weights too large", error, {})
    return None


def _over_time(reading: Reading) -> Alert | None:
    if not reading.through_time < VANISHING.through_time:
        return None
    share = rounded(reading.through_time)
    message = f"at the first step the early steps of a sequence get {share} of the late steps' gradient"
    evidence = {"through_time": reading.through_time}
    return _alert(reading, "vanishing", message, "recurrence over many steps", None, evidence)


def _too_large(reading: Reading) -> Alert | None:
    is_product = len(reading.profile) >= DEPTH.parts or math.isfinite(reading.through_time)
    if not (is_product and reading.displacement > EXPLODING.harmful_update * EXPLODING.displacement):
        return None
    message = f"the first update would change the weights by {of_weight_norm(reading.displacement)}"
    reference = reading.norm * EXPLODING.displacement / 10 / reading.displacement
    evidence = {"displacement": reading.displacement, "reference": reference, "loss": reading.loss}
    return _alert(reading, "exploding", message, "learning rate too high", None, evidence)


def _overflow(reading: Reading) -> Alert | None:
    if math.isfinite(reading.loss):
        return None
    message = "the first loss is NaN or infinite in 16 bits, which no loss scale can prevent"
    return _alert(reading, "nonfinite", message, "16-bit overflow", None, {})


def _grows(reading: Reading) -> bool:
    error = reading.error_profile
    if len(error) < DEPTH.fitted or reading.layers.are_normalised:
        return False
    return _over_all(error) > EXPLODING.growth < early_to_late(error)


def _over_all(profile: Profile) -> float:
    """Early over late along the fitted factor per layer."""
    with np.errstate(over="ignore"):
        return float(np.float64(decay_per_layer(profile)) ** (len(profile) - 1))


def _has_zero_weights(reading: Reading) -> bool:
    norms = reading.weight_norms
    return norms is not None and bool((norms[reading.layers.has_weight & reading.layer_present] == 0).any())


def _alert(
    reading: Reading, kind: str, message: str, cause: str, profile: Profile | None, evidence: dict[str, float]
) -> Alert:
    numbers = {"norm": reading.norm, "first_reading": 1.0, **evidence}
    if profile is not None:
        numbers |= {"early_to_late": early_to_late(profile), "decay_per_layer": decay_per_layer(profile)}
    finite = Evidence({name: float(value) for name, value in numbers.items() if math.isfinite(value)})
    names = tuple(np.array(reading.layers.names, dtype=object)[reading.profiled])
    advice = "initialise with He (ReLU) or Xavier (tanh); add normalisation or residual connections"
    return Alert(kind, "critical", reading.step, names, message, finite, cause, advice, reading.optimizer)
