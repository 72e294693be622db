"""What the first reading of a run shows of its initialisation, before anything is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.plain_numbers import of_weight_norm, rounded
from grad_callbacks.detection.rules.vanishing_conditions import first_half_is_dead
from grad_callbacks.detection.rules.vanishing_message import describe_dead, has_saturating_activations
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import Profile, decay_per_layer, early_to_late


@dataclass(frozen=True)
class FirstStepThresholds(Thresholds):
    """Thresholds of the judgement on the first reading of a run."""

    fitted_layers: int = threshold(
        5, "layers over which a decay or growth per layer can be fitted", unit="layers", source="not measured"
    )
    profiled_layers: int = threshold(
        3, "layers from which on there is a profile over depth at all", unit="layers", source="as in early_to_late"
    )
    decay: float = threshold(
        5e-4,
        "the gradient vanishes over depth below this ratio",
        unit="early over late gradient",
        source="measured: networks that recover by themselves were seen at 9e-4 and above",
    )
    decay_of_few_layers: float = threshold(
        1e-6,
        "the same over three or four layers, where a single unlike layer may look like a decay",
        unit="early over late gradient",
        source="not measured",
    )
    depth_growth: float = threshold(
        100.0,
        "the error explodes over depth, without normalisation, above this ratio",
        unit="early over late error",
        source="measured: healthy networks of five and more layers have up to 3",
    )
    recurrent_growth: float = threshold(
        10.0,
        "the error explodes over time above this ratio of that at a recurrent layer to that at the last one",
        unit="recurrent over last error",
        source="measured: healthy recurrences were seen to 0.7, plain ones that learned all the same to 6.3, none from "
        "9.7 on",
    )
    recurrent_growth_divisor: float = threshold(
        10.0, "`recurrent_growth` over this is enough if the first update is large", unit="1", source="not measured"
    )
    large_update: float = threshold(
        0.2, "a first update is large then", unit="share of the weights' norm", source="not measured"
    )
    through_time: float = threshold(
        1e-8,
        "the gradient vanishes over time below this ratio",
        unit="early over late gradient",
        source="below the precision of float32 (VanishingThresholds.through_time)",
    )
    displacement: float = threshold(
        2.0,
        "a first update that changes all weights by more than this is too large",
        unit="share of the weights' norm",
        source="measured: on the tuning half healthy networks have up to 0.51, failing ones from 2.5 on; a deep "
        "sigmoid net with skips that learns has 1.1",
    )
    target_displacement: float = threshold(
        0.04,
        "the reference is the norm whose update changes the weights by this; the clip threshold is half of it",
        unit="share of the weights' norm",
        source="not measured",
    )


LIMITS = FirstStepThresholds()
# Causes that say nothing of the initialisation. A guard that can do something about them does; else whether such a run
# fails is left to later readings, unless the first update alone is too large.
NOT_OF_THE_START = ("inputs too large", "targets or loss too large", "bad batch")


def judge_first_step(reading: Reading) -> Alert | None:
    """Judge the first reading of a run by itself; None if its initialisation is as it should be.

    Rules wait for several readings, since trained networks have odd moments. Fresh weights have none: their gradient
    decays or grows over depth as mean-field theory says (Schoenholz et al. 2017), at the first step as at the tenth. So
    it is enough here that

    * the error has decayed over depth, both at the ends and along the fit, or half of the layers have no gradient;
    * the error has grown over depth without normalisation, or over a sequence;
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
    if len(profile) >= LIMITS.profiled_layers and first_half_is_dead(reading):
        return _alert(reading, "vanishing", describe_dead(reading), "dead units", profile, {})
    for decayed in (profile, error):
        if _decays(decayed, profile):
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
    if _explodes_in_time(reading):
        growth = _recurrent_growth(reading.error_profile)
        message = f"at the first step the error at a recurrent layer is {rounded(growth)} times that at the last layer"
        evidence = {"growth": growth, "through_time": reading.through_time}
        return _alert(reading, "exploding", message, "recurrence over many steps", None, evidence)
    if reading.through_time < LIMITS.through_time:
        share = rounded(reading.through_time)
        message = f"at the first step the early steps of a sequence get {share} of the late steps' gradient"
        evidence = {"through_time": reading.through_time}
        return _alert(reading, "vanishing", message, "recurrence over many steps", None, evidence)
    return None


def _too_large(reading: Reading) -> Alert | None:
    if not (reading.displacement > LIMITS.displacement and len(reading.profile) >= LIMITS.profiled_layers):
        return None
    message = f"the first update would change the weights by {of_weight_norm(reading.displacement)}"
    reference = reading.norm * LIMITS.target_displacement / reading.displacement
    evidence = {"displacement": reading.displacement, "reference": reference, "loss": reading.loss}
    return _alert(reading, "exploding", message, "learning rate too high", None, evidence)


def _overflow(reading: Reading) -> Alert | None:
    if math.isfinite(reading.loss):
        return None
    message = "the first loss is NaN or infinite in 16 bits, which no loss scale can prevent"
    return _alert(reading, "nonfinite", message, "16-bit overflow", None, {})


def _decays(decayed: Profile, profile: Profile) -> bool:
    if len(decayed) >= LIMITS.fitted_layers:
        return early_to_late(decayed) < LIMITS.decay and _over_all(decayed) < LIMITS.decay
    ratio = max(early_to_late(decayed), early_to_late(profile))
    return LIMITS.profiled_layers <= len(decayed) == len(profile) and ratio < LIMITS.decay_of_few_layers


def _grows(reading: Reading) -> bool:
    error = reading.error_profile
    if len(error) < LIMITS.fitted_layers or reading.layers.are_normalised:
        return False
    return _over_all(error) > LIMITS.depth_growth < early_to_late(error)


def _over_all(profile: Profile) -> float:
    """Early over late along the fitted factor per layer."""
    with np.errstate(over="ignore"):
        return float(np.float64(decay_per_layer(profile)) ** (len(profile) - 1))


def _explodes_in_time(reading: Reading) -> bool:
    is_recurrent = math.isfinite(reading.through_time) and len(reading.error_profile) > 1
    limit = LIMITS.recurrent_growth
    if reading.displacement > LIMITS.large_update:
        limit /= LIMITS.recurrent_growth_divisor
    return is_recurrent and _recurrent_growth(reading.error_profile) > limit


def _recurrent_growth(error: Profile) -> float:
    """The largest error before the last layer, relative to the last one's."""
    return float(error[:-1].max() / error[-1]) if error[-1] > 0 else math.inf


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
