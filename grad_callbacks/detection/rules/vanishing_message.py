"""What an alert about vanishing gradients says: message, evidence, layers, and the cause as far as readings tell it."""

from __future__ import annotations

import numpy as np

from grad_callbacks.detection.plain_numbers import rounded
from grad_callbacks.detection.rules.vanishing_conditions import (
    SATURATING,
    decays,
    first_half_is_dead,
    first_layer_is_cut_off,
)
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import DEPTH, decay_per_layer, early_to_late


def is_dead(reading: Reading) -> bool:
    """True if the first layers have no gradient at all."""
    return first_half_is_dead(reading) or first_layer_is_cut_off(reading)


def describe(reading: Reading, ratio: float) -> tuple[str, dict[str, float]]:
    """Return the message about a gradient that vanishes over depth, and the numbers behind it."""
    profile, dead = reading.profile, is_dead(reading)
    # Where the weights' profile is flat the error's is the one that has decayed.
    decayed = profile if decays(profile, ratio) or dead else reading.error_profile
    third = len(profile) // DEPTH.parts
    early_motion = float(np.median(reading.motion[reading.profiled][:third]))  # type: ignore[index]  # judged before
    evidence = {
        "early_to_late": early_to_late(decayed),
        "decay_per_layer": decay_per_layer(decayed),
        "early_motion": early_motion,
        "norm": reading.norm,
        "depth": float(len(profile)),
    }
    if dead:
        return describe_dead(reading), evidence
    message = (
        f"the gradient shrinks to {rounded(evidence['decay_per_layer'])} of its size per layer toward the input; the "
        f"early layers get {rounded(evidence['early_to_late'])} of the late layers' gradient, and an update changes "
        f"them by {rounded(early_motion)} of their norm"
    )
    return message, evidence


def describe_dead(reading: Reading) -> str:
    """Return how many layers have no gradient."""
    profile = reading.profile
    return f"{int((profile == 0).sum())} of {len(profile)} layers receive no gradient at all"


def describe_gone(reading: Reading, loss: float) -> tuple[str, dict[str, float], str, str]:
    """Return message, evidence, cause and advice where no layer gets a gradient any more.

    Args:
        reading: The reading.
        loss: Level of the loss.
    """
    size = "zero" if reading.norm == 0 else f"next to nothing ({rounded(reading.norm)})"
    message = f"the gradient is {size} in all {len(reading.layers.names)} layers, with the loss at {rounded(loss)}"
    advice = "give the loss logits instead of probabilities; standardise the targets; lower the learning rate"
    return message, {"norm": reading.norm, "loss": loss}, "saturated output", advice


def faint_layers(reading: Reading, ratio: float) -> tuple[str, ...]:
    """Return the early layers and all others whose gradient is small."""
    profile = reading.profile
    faint = profile <= ratio * profile.max()
    faint[: len(profile) // DEPTH.parts] = True
    return tuple(np.array(reading.layers.names, dtype=object)[reading.profiled][faint])


def guess(reading: Reading) -> tuple[str, str]:
    """Return cause and advice as far as the reading alone can tell."""
    if is_dead(reading):
        return (
            "dead units",
            "lower the learning rate; initialise with He; use LeakyReLU or GELU instead of ReLU",
        )
    structure = "add normalisation (batch norm) or residual connections"
    if has_saturating_activations(reading):
        return (
            "saturated activations",
            f"use ReLU with He initialisation; {structure}; initialise with larger weights",
        )
    return "weights too small", f"initialise with He (ReLU) or Xavier (tanh); {structure}"


def has_saturating_activations(reading: Reading) -> bool:
    """True if the model has bounded activations, such as sigmoid."""
    return any(name in reading.layers.activations for name in SATURATING)
