"""What an alert about exploding gradients says: message, evidence, and the cause as far as readings tell it."""

from __future__ import annotations

import math

import numpy as np

from grad_callbacks.detection.plain_numbers import of_weight_norm, rounded
from grad_callbacks.detection.rules.exploding_conditions import Condition, grows_over_depth
from grad_callbacks.detection.rules.exploding_history import RunHistory
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.depth_profile import decay_per_layer, early_to_late

_LOSS_HAS_RISEN = (Condition.DIVERGED_EARLY, Condition.LOSS_DIVERGED, Condition.PROGRESS_LOST, Condition.SURGED)


def describe(reading: Reading, condition: Condition, run: RunHistory, alarms: int) -> tuple[str, dict[str, float]]:
    """Return the message and the finite numbers behind it; ``alarms`` counts those of the present episode."""
    usual = run.baseline.level
    if condition is Condition.BECAME_NONFINITE:
        norm, seen = run.last_norm, f"gradients are NaN or infinite, one step after a norm of {rounded(run.last_norm)}"
    else:
        norm, seen = reading.norm, f"gradient norm {rounded(reading.norm)}"
    evidence = {"norm": norm, "alarms": float(alarms)}
    if run.has_baseline:
        evidence |= {"reference": usual, "ratio": norm / usual}
        seen += f", {rounded(norm / usual)} times the usual {rounded(usual)}"
    if math.isfinite(reading.displacement):
        evidence["displacement"] = reading.displacement
        if reading.displacement > 0:  # not with a learning rate of zero
            # The norm whose update changes the weights by a tenth of what is too much.
            evidence.setdefault("reference", reading.norm * run.limits.displacement / 10 / reading.displacement)
        seen += f"; the update would change the weights by {of_weight_norm(reading.displacement)}"
    if condition is Condition.GROWS_OVER_DEPTH:
        error = reading.error_profile
        evidence |= {"decay_per_layer": decay_per_layer(error), "early_to_late": early_to_late(error)}
        seen += f"; the error grows {rounded(decay_per_layer(error))}-fold per layer toward the input"
    if condition is Condition.DIVERGED_EARLY:
        evidence["moved"] = run.largest_update
        seen += f"; an update has changed the weights by {of_weight_norm(run.largest_update)}"
    if condition is Condition.RECURRENCE_STUCK:
        evidence["recurrence"] = run.recurrence
        seen += (
            f"; the loss has not come down in {SPANS.stuck} steps; the recurrent weights would multiply "
            f"an error by 1e{run.recurrence:.0f} over a sequence"
        )
    if condition is Condition.PROGRESS_LOST:
        evidence["best_loss"] = run.loss.best
        seen += f"; half of what had been learned is lost: the loss was down at {rounded(run.loss.best)}"
    if condition is Condition.SURGED:
        evidence["motion"] = run.surge.farthest
        seen += f"; an update was {rounded(run.surge.farthest)} times as long as usual"
    if math.isfinite(reading.loss):
        evidence["loss"] = reading.loss
        if condition in _LOSS_HAS_RISEN:
            seen += f"; the loss has risen to {rounded(reading.loss)}"
    return seen, {name: value for name, value in evidence.items() if math.isfinite(value)}


def guess(reading: Reading, condition: Condition, run: RunHistory, is_critical: bool) -> tuple[str, str]:
    """Return cause and advice as far as the readings alone can tell."""
    grows = condition in (Condition.GROWS_OVER_DEPTH, Condition.RECURRENCE_STUCK)
    if grows or (not run.has_baseline and grows_over_depth(reading, run)):
        if run.is_recurrent:
            return (
                "recurrence over many steps",
                "clip by norm (ClipNorm); use nn.LSTM or nn.GRU; initialise recurrent weights orthogonally",
            )
        return (
            "weights too large",
            "initialise with He or Xavier; scale residual branches; add normalisation",
        )
    if condition is Condition.STEP_TOO_LARGE and not is_critical:
        return (
            "bad batch",
            "clip by norm (ClipNorm) near the usual norm; if it happens again, lower the learning rate",
        )
    return (
        "learning rate too high",
        "lower the learning rate (ReduceLR); clip by norm (ClipNorm); warm up; add normalisation",
    )


def largest_layers(reading: Reading) -> tuple[str, ...]:
    """Return the fewest layers that make up most of the squared norm; all where it is zero or not finite."""
    names = reading.layers.names
    if not reading.is_finite or reading.norm == 0:
        return names
    shares = reading.layer_norms**2 / reading.norm**2
    largest = np.argsort(shares)[::-1]
    enough = int(np.searchsorted(np.cumsum(shares[largest]), 1 / 2)) + 1
    return tuple(names[i] for i in sorted(largest[:enough]))
