"""Why the error dies out."""

from __future__ import annotations

import math

from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.activations import SATURATING, mean_of
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.probes import EARLY, GROWN, LASTING, Probes
from grad_callbacks.detection.diagnosis.weight_gains import needed_gain

DEAD = 0.9  # share of a layer's units: AutoTrainer calls a layer dead at 0.7, a healthy deep ReLU net has up to 0.5
SATURATED = 0.5  # share of all units: SageMaker's and TheDeepChecker's limit
TOO_SMALL = 0.85  # of the gain that is needed: over 30 layers the error shrinks to a hundredth
TIME = 1e-3  # the error at the early steps over that at the late ones, as for layers


def cause_of_vanishing(exam: Probes) -> Finding:
    """Decide, most specific first: what stops the error, then what shrinks it layer by layer."""
    kind, gain, structure = exam.activation, exam.gain, exam.structure
    saturates = kind in SATURATING
    slope = mean_of(activity.slope for activity in exam.activities.values() if activity.kind == kind)
    # Weights of zero have no gain to lack: all of the error is lost in them.
    if gain != 0:
        # A unit that never fires passes nothing back (Lu et al. 2019). Bounded activations do not die, they saturate.
        if not saturates and (dead := _dead_share(exam)) >= DEAD:
            return _killed(exam, dead) or _dead(exam, dead)
        # Through time the same weight multiplies at every step (Hochreiter 1991; Bengio et al. 1994).
        if structure.recurrent and _is_through_time(exam):
            return _recurrence(exam)
        # Post-LN gradients are ill-balanced at the start, and Adam freezes them so (Xiong et al. 2020).
        if _lacks_warm_up(exam):
            return _no_warm_up(exam)
    if saturates:
        saturated = mean_of(activity.saturated for activity in exam.activities.values() if activity.kind == kind)
        # sigmoid's slope is at most 1/4: with any usual gain each layer takes three quarters of the error
        # (Glorot & Bengio 2010, sec. 3.1). Only if the weights take more than that are they to blame first.
        loses_more_by_weights = not exam.is_normalised and gain < (slope if slope == slope else _best_slope(kind))
        if saturated >= SATURATED or (kind in ("Sigmoid", "Hardsigmoid") and not loses_more_by_weights):
            return _saturated(exam, saturated, slope)
        # Else slope and gain are compared: the smaller factor is the cause.
        if slope < 0.8 and slope < min(gain, 1.0):
            return _saturated(exam, saturated, slope)
    if gain < TOO_SMALL * needed_gain(kind) and (gain == 0 or not exam.is_normalised):
        return _weights(exam, slope)
    if structure.recurrent:
        return _recurrence(exam)
    # The weights are as they should be, and still the error shrinks: width is finite, depth is large
    # (Hanin 2018: the error's spread grows with the sum of inverse widths).
    return _depth(exam)


def _dead_share(exam: Probes) -> float:
    """The largest share of dead units in a layer; by the profile alone, 1 if the first half has no gradient."""
    shares = [activity.dead for activity in exam.activities.values() if not math.isnan(activity.dead)]
    if shares:
        return max(shares)
    reading = exam.case.reading
    if reading is None or not len(reading.profile):
        return 0.0
    early = reading.profile[: (len(reading.profile) + 1) // 2]
    return 1.0 if reading.profile.max() > 0 and bool((early == 0).all()) else 0.0


def _is_through_time(exam: Probes) -> bool:
    reading = exam.case.reading
    measured = exam.flow.through_time
    if math.isnan(measured) and reading is not None:
        measured = reading.through_time
    if not math.isnan(measured):
        return measured < TIME or exam.structure.depth < 5
    # No layer to lose it in: what is deep here is time.
    others = [name for name in exam.gains if name not in exam.structure.recurrent]
    return len(others) < 5


def _lacks_warm_up(exam: Probes) -> bool:
    is_post = exam.structure.is_post_norm and exam.structure.has_attention
    return is_post and exam.is_adaptive and not exam.is_warmed_up and exam.alert.step <= 2 * LASTING


def _best_slope(kind: str) -> float:
    return {"Sigmoid": 0.25, "Hardsigmoid": 1 / 6}.get(kind, 1.0)


def _dead(exam: Probes, share: float) -> Finding:
    return Finding(
        "dead units",
        f"{share:.0%} of a layer's units are active for no input of the batch, and nothing passes back through them",
        (
            advice.replace_activation(exam, "LeakyReLU"),
            "biases of zero: `nn.init.zeros_(layer.bias)`; " + advice.initialise(exam),
            advice.lower_rate(exam),
            advice.normalise(exam),
        ),
        {"dead_share": share},
    )


def _killed(exam: Probes, share: float) -> Finding | None:
    """Dead units that were alive at the start: steps too long have thrown weights or biases there (Lu et al. 2019)."""
    before = exam.explosion_before
    if exam.alert.step <= EARLY or not (exam.growth_of_weights > GROWN or before is not None):
        return None
    return Finding(
        "learning rate too high",
        f"{share:.0%} of a layer's units died in training, and weights grew {exam.growth_of_weights:.2g} times",
        (
            advice.lower_rate(exam),
            advice.warm_up(),
            advice.clip(exam),
            advice.replace_activation(exam, "LeakyReLU"),
        ),
        {"dead_share": share, "growth_of_weights": exam.growth_of_weights},
    )


def _recurrence(exam: Probes) -> Finding:
    evidence = {"through_time": exam.flow.through_time, "spectral_radius": exam.radius}
    names = ", ".join(exam.structure.recurrent)
    seen = f"{names} multiplies the error with the same weights at every step back in time"
    if not math.isnan(exam.radius):
        seen += f", with a spectral radius of {exam.radius:.2g}"
    name = exam.structure.recurrent[0]
    return Finding(
        "recurrence over many steps",
        seen,
        (
            f"a gated cell: `nn.LSTM` or `nn.GRU` at {name}"
            if not exam.structure.is_gated
            else f"shorter sequences into {name}, or attention over its outputs",
            f"orthogonal initialisation: `nn.init.orthogonal_({name}.weight_hh_l0)`",
            "truncated backpropagation through time",
        ),
        evidence,
    )


def _no_warm_up(exam: Probes) -> Finding:
    return Finding(
        "missing warm-up",
        f"a post-norm transformer is trained by {type(exam.case.optimizer).__name__} at its full rate from the start",
        (
            advice.warm_up(),
            "normalisation in front of each block: `nn.TransformerEncoderLayer(..., norm_first=True)`",
            advice.lower_rate(exam),
        ),
        {"skips_from_norm": float(exam.structure.skips_from_norm)},
    )


def _saturated(exam: Probes, saturated: float, slope: float) -> Finding:
    kind = exam.activation
    share = f"{saturated:.0%} of the {kind} units are saturated" if saturated == saturated else ""
    if kind in ("Sigmoid", "Hardsigmoid"):
        limit = "sigmoid's slope is at most 1/4" if kind == "Sigmoid" else "hard sigmoid's slope is at most 1/6"
        seen = (
            limit + (f" ({slope:.2g} here)" if slope == slope else "") + ", and the error is multiplied by it per layer"
        )
        if saturated >= 0.05:
            seen += f"; {share}"
    else:
        seen = f"{share or kind + ' flattens'}, so their slope is {slope:.2g}" if slope == slope else f"{kind} flattens"
    return Finding(
        "saturated activations",
        seen,
        (
            f"{advice.replace_activation(exam)}; {advice.initialise(exam, 'ReLU')}",
            advice.normalise(exam),
            advice.skip(),
        ),
        {"saturated_share": saturated, "activation_slope": slope, **_gain_evidence(exam)},
    )


def _weights(exam: Probes, slope: float) -> Finding:
    needed = needed_gain(exam.activation)
    return Finding(
        "weights too small",
        f"the weights' gain is {exam.gain:.2g}, where {exam.activation or 'a linear layer'} needs {needed:.3g}",
        (advice.initialise(exam), advice.normalise(exam), advice.skip()),
        {"activation_slope": slope, **_gain_evidence(exam)},
    )


def _depth(exam: Probes) -> Finding:
    structure = exam.structure
    remedies = [] if exam.is_normalised else [advice.normalise(exam)]
    has = f"{structure.norms or 'no'} normalisations and {structure.skips or 'no'} skips"
    return Finding(
        "depth without normalisation or skips",
        f"the error passes {structure.depth} layers with {has}",
        (*([] if structure.skips else [advice.skip()]), *remedies, f"fewer layers than {structure.depth}"),
        {"depth": float(structure.depth), "norms": float(structure.norms), **_gain_evidence(exam)},
    )


def _gain_evidence(exam: Probes) -> dict[str, float]:
    return {"weight_gain": exam.gain, "gain_needed": needed_gain(exam.activation), "mean_field_factor": exam.mean_field}
