"""Decides why gradients vanish."""

from __future__ import annotations

import math
from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.activations import SATURATING, mean_of, steepest_slope
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS, Probes
from grad_callbacks.detection.diagnosis.weight_gains import needed_gain
from grad_callbacks.detection.plain_numbers import rounded


@dataclass(frozen=True)
class VanishingCauseThresholds(Thresholds):
    """Thresholds of the decision why gradients vanish."""

    dead_share: float = threshold(
        0.9,
        "a layer with more dead units is dead",
        unit="share of a layer's units",
        source="AutoTrainer's limit is 0.7; measured: a healthy deep ReLU net has up to 0.5",
    )
    saturated_share: float = threshold(
        0.5,
        "more saturated units are the cause",
        unit="share of all units",
        source="SageMaker Debugger's and TheDeepChecker's limit",
    )
    saturated_slope: float = threshold(
        0.8, "activations with a smaller slope are saturated, if it is below the gain", unit="1", source="not measured"
    )
    small_gain: float = threshold(
        0.85, "smaller gains are too small", unit="x needed gain", source="formula: over 30 layers 0.85 ** 30 = 0.8%"
    )
    through_time: float = threshold(
        1e-3,
        "the error vanishes over time below this ratio",
        unit="early over late error",
        source="the same as over depth (VanishingThresholds.ratio)",
    )
    few_layers: int = threshold(
        5,
        "in a recurrent network with fewer layers the error is lost over time",
        unit="layers",
        source="not measured",
    )


LIMITS = VanishingCauseThresholds()


def cause_of_vanishing(probes: Probes) -> Finding:
    """Decide, most specific first: what stops the error, then what shrinks it at every layer."""
    if probes.alert.cause == "saturated output":
        return _saturated_output(probes)
    kind, gain, structure = probes.activation, probes.gain, probes.structure
    saturates = kind in SATURATING
    slope = mean_of(activity.slope for activity in probes.activities.values() if activity.kind == kind)
    # Weights of zero have no gain to lack: all of the error is lost in them.
    if gain != 0:
        # A unit that never fires passes nothing back (Lu et al. 2019). Bounded activations do not die, they saturate.
        if not saturates and (dead := _dead_share(probes)) >= LIMITS.dead_share:
            return _killed(probes, dead) or _dead(probes, dead)
        # Through time the same weight multiplies at every step (Hochreiter 1991; Bengio et al. 1994).
        if structure.recurrent and _is_through_time(probes):
            return _recurrence(probes)
        # Post-LN gradients are ill-balanced at the start, and Adam freezes them so (Xiong et al. 2020).
        if _lacks_warm_up(probes):
            return _no_warm_up(probes)
    if saturates:
        saturated = mean_of(activity.saturated for activity in probes.activities.values() if activity.kind == kind)
        # sigmoid's slope is at most 1/4: with any usual gain each layer takes three quarters of the error
        # (Glorot & Bengio 2010, sec. 3.1). Only if the weights take more than that are they to blame first.
        loses_more_by_weights = not probes.is_normalised and gain < (slope if slope == slope else steepest_slope(kind))
        if saturated >= LIMITS.saturated_share or (kind in ("Sigmoid", "Hardsigmoid") and not loses_more_by_weights):
            return _saturated(probes, saturated, slope)
        # Else slope and gain are compared: the smaller factor is the cause.
        if slope < LIMITS.saturated_slope and slope < min(gain, 1.0):
            return _saturated(probes, saturated, slope)
    if gain < LIMITS.small_gain * needed_gain(kind) and (gain == 0 or not probes.is_normalised):
        return _weights(probes, slope)
    if structure.recurrent:
        return _recurrence(probes)
    # The weights are as they should be, and still the error shrinks: width is finite, depth is large
    # (Hanin 2018: the error's spread grows with the sum of inverse widths).
    return _depth(probes)


def _saturated_output(probes: Probes) -> Finding:
    """Nothing comes back from the loss itself, or all units of a layer are dead."""
    structure, target = probes.structure, probes.flow.target
    kind, is_cross_entropy = structure.output_activation, structure.criterion == "LogSoftmax"
    dead = _dead_share(probes)
    if kind and is_cross_entropy:
        return Finding(
            "saturated output",
            f"the {kind} in front of the cross entropy is saturated: cross entropy takes logits, and has a softmax of "
            "its own",
            (f"logits: no {kind} in front of `cross_entropy`", advice.lower_rate(probes)),
            {"dead_share": dead},
        )
    if dead >= LIMITS.dead_share:
        return _killed(probes, dead) or _dead(probes, dead)
    if kind:
        seen = f"the {kind} of the output is saturated"
        reach = "" if math.isnan(target) else f", and the targets have a size of {rounded(target)}"
        return Finding(
            "saturated output",
            seen + reach,
            (
                f"no {kind} at the output, or targets standardised into its range",
                advice.lower_rate(probes),
            ),
            {"target": target, "dead_share": dead},
        )
    return Finding(
        "saturated output",
        "nothing comes back from the loss",
        (advice.lower_rate(probes), advice.initialise(probes), "a loss that still has a slope at these outputs"),
        {"dead_share": dead},
    )


def _dead_share(probes: Probes) -> float:
    """The largest share of dead units in a layer; by the profile alone, 1 if the first half has no gradient."""
    shares = [activity.dead for activity in probes.activities.values() if not math.isnan(activity.dead)]
    if shares:
        return max(shares)
    reading = probes.case.reading
    if reading is None or not len(reading.profile):
        return 0.0
    early = reading.profile[: (len(reading.profile) + 1) // 2]
    return 1.0 if reading.profile.max() > 0 and bool((early == 0).all()) else 0.0


def _is_through_time(probes: Probes) -> bool:
    reading = probes.case.reading
    measured = probes.flow.through_time
    if math.isnan(measured) and reading is not None:
        measured = reading.through_time
    if not math.isnan(measured):
        return measured < LIMITS.through_time or probes.structure.depth < LIMITS.few_layers
    # No layer to lose it in: what is deep here is time.
    others = [name for name in probes.gains if name not in probes.structure.recurrent]
    return len(others) < LIMITS.few_layers


def _lacks_warm_up(probes: Probes) -> bool:
    is_post = probes.structure.is_post_norm and probes.structure.has_attention
    return (
        is_post
        and probes.is_adaptive
        and not probes.is_warmed_up
        and probes.alert.step <= 2 * PROBE_LIMITS.initialisation_matters
    )


def _dead(probes: Probes, share: float) -> Finding:
    return Finding(
        "dead units",
        f"{share:.0%} of a layer's units are 0 for every input of the batch and pass no gradient back",
        (
            advice.replace_activation(probes, "LeakyReLU"),
            "biases of zero: `nn.init.zeros_(layer.bias)`; " + advice.initialise(probes),
            advice.lower_rate(probes),
            advice.normalise(probes),
        ),
        {"dead_share": share},
    )


def _killed(probes: Probes, share: float) -> Finding | None:
    """Dead units that were alive at the start: too long steps have killed them (Lu et al. 2019)."""
    growth = probes.growth_of_weights
    has_exploded = probes.have_weights_grown or probes.explosion_before is not None
    if not has_exploded:
        return None
    seen = f"{share:.0%} of a layer's units died in training"
    if not math.isnan(growth):
        seen += f", and weights grew {rounded(growth)}-fold"
    return Finding(
        "learning rate too high",
        seen,
        (
            advice.lower_rate(probes),
            advice.warm_up(probes),
            advice.clip(probes),
            advice.replace_activation(probes, "LeakyReLU"),
        ),
        {"dead_share": share, "growth_of_weights": growth},
    )


def _recurrence(probes: Probes) -> Finding:
    evidence = {"through_time": probes.flow.through_time, "spectral_radius": probes.radius}
    names = ", ".join(probes.structure.recurrent)
    seen = f"{names} multiplies the error by the same weights at every time step"
    if not math.isnan(probes.radius):
        seen += f", with a spectral radius of {rounded(probes.radius)}"
    name = probes.structure.recurrent[0]
    return Finding(
        "recurrence over many steps",
        seen,
        (
            f"a gated cell: `nn.LSTM` or `nn.GRU` at {name}"
            if not probes.structure.is_gated
            else f"shorter sequences into {name}, or attention over its outputs",
            f"orthogonal initialisation: `nn.init.orthogonal_({name}.weight_hh_l0)`",
            "truncated backpropagation through time",
        ),
        evidence,
    )


def _no_warm_up(probes: Probes) -> Finding:
    optimizer = type(probes.case.optimizer).__name__
    return Finding(
        "missing warm-up",
        f"{optimizer} trains a post-norm transformer at the full learning rate from the first step",
        (
            advice.warm_up(probes),
            "normalisation before each block: `nn.TransformerEncoderLayer(..., norm_first=True)`",
            advice.lower_rate(probes),
        ),
        {"skips_from_norm": float(probes.structure.skips_from_norm)},
    )


def _saturated(probes: Probes, saturated: float, slope: float) -> Finding:
    kind = probes.activation
    share = f"{saturated:.0%} of the {kind} units are saturated" if saturated == saturated else ""
    if kind in ("Sigmoid", "Hardsigmoid"):
        limit = "sigmoid's slope is at most 1/4" if kind == "Sigmoid" else "hard sigmoid's slope is at most 1/6"
        measured = f" ({rounded(slope)} here)" if slope == slope else ""
        seen = f"{limit}{measured}, and every layer multiplies the error by it"
        if saturated >= LIMITS.saturated_share:
            seen += f"; {share}"
    else:
        seen = share or f"the {kind} units are nearly flat"
        if slope == slope:
            seen += f", so that every layer multiplies the error by their slope of {rounded(slope)}"
    return Finding(
        "saturated activations",
        seen,
        (
            f"{advice.replace_activation(probes)}; {advice.initialise(probes, 'ReLU')}",
            advice.normalise(probes),
            advice.skip(),
        ),
        {"saturated_share": saturated, "activation_slope": slope, **_gain_evidence(probes)},
    )


def _weights(probes: Probes, slope: float) -> Finding:
    needed = needed_gain(probes.activation)
    layer = probes.activation or "a linear layer"
    return Finding(
        "weights too small",
        f"the weights' gain is {rounded(probes.gain)}, but {layer} needs {rounded(needed)}",
        (advice.initialise(probes), advice.normalise(probes), advice.skip()),
        {"activation_slope": slope, **_gain_evidence(probes)},
    )


def _depth(probes: Probes) -> Finding:
    structure = probes.structure
    remedies = [] if probes.is_normalised else [advice.normalise(probes)]
    has = f"{structure.norms or 'no'} normalisations and {structure.skips or 'no'} residual connections"
    return Finding(
        "depth without normalisation or skips",
        f"the error passes through {structure.depth} layers with {has}",
        (*([] if structure.skips else [advice.skip()]), *remedies, f"fewer layers than {structure.depth}"),
        {"depth": float(structure.depth), "norms": float(structure.norms), **_gain_evidence(probes)},
    )


def _gain_evidence(probes: Probes) -> dict[str, float]:
    return {
        "weight_gain": probes.gain,
        "gain_needed": needed_gain(probes.activation),
        "mean_field_factor": probes.mean_field,
    }
