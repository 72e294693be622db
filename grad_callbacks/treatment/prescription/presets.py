"""The presets: which remedies answer which alert, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Plan = Mapping[str, Sequence[Any]]


_BOUNDS = ["ClipNorm", "Rollback", "ReduceLR"]
_SKIPS = ["SkipStep", "Rollback"]
_NEW_WEIGHTS = {"Reinitialize": {"beside": True}}  # once Rollback has gone back to the start

# A single spike needs no more than the clip that acts in the same step; a second one is mostly a learning rate too
# high, which clipping alone does not cure: back to weights from before it, and on at a tenth of the rate. What was
# wrong from the first step on is initialised again.
_EXPLODING: Plan = {
    "exploding": [*_BOUNDS, _NEW_WEIGHTS, "AdaptiveStep"],
    "exploding: bad batch": ["Rollback", "ClipNorm", "ReduceLR"],  # one that clipping has come too late for
    "exploding: learning rate too high": ["Rollback", "ClipNorm", "ReduceLR", _NEW_WEIGHTS, "AdaptiveStep"],
    "exploding: inputs too large": ["StandardizeInputs", *_BOUNDS],
    "exploding: saturated attention": ["Rollback", "ReduceLR"],
    "exploding: recurrence over many steps": ["Reinitialize", *_BOUNDS, "AdaptiveStep"],
    "exploding: weights too large": ["Reinitialize", *_BOUNDS, "AdaptiveStep"],
    "exploding: unbounded exponent": ["Rollback", _NEW_WEIGHTS, "Reinitialize", "ClipNorm", "ReduceLR", "AdaptiveStep"],
    "exploding: unscaled residual branches": ["Reinitialize", *_BOUNDS, "AdaptiveStep"],
    "exploding: missing warm-up": ["Warmup", "Rollback", "ReduceLR"],
}
_NONFINITE: Plan = {
    "nonfinite": ["SkipStep", "MaskUndefined", "Rollback"],
    "nonfinite: undefined operation": ["MaskUndefined", "SkipStep"],  # no other weights make it defined
    "nonfinite: unbounded exponent": ["Reinitialize", "Rollback", _NEW_WEIGHTS, "SkipStep"],
    "nonfinite: weights too large": ["Reinitialize", *_SKIPS],
    "nonfinite: unscaled residual branches": ["Reinitialize", *_SKIPS],
    "nonfinite: inputs too large": ["StandardizeInputs", *_SKIPS],
    "nonfinite: 16-bit overflow": ["Reinitialize", "FullPrecision", *_SKIPS, "AdaptiveStep"],
    "nonfinite: non-finite weights": ["Rollback", "SkipStep"],
    "nonfinite: learning rate too high": ["Rollback", "SkipStep", _NEW_WEIGHTS],
}
# No remedy that acts on gradients brings back a vanishing one.
_VANISHING: Plan = {
    "vanishing": ["Reinitialize", "AdaptiveStep"],
    "vanishing: missing warm-up": ["Warmup"],
    "vanishing: learning rate too high": ["Rollback", "Reinitialize", "AdaptiveStep"],
    "vanishing: saturated output": ["Rollback"],
    "vanishing: dead units": ["Reinitialize", "Rollback", "AdaptiveStep"],
}

# Inputs in another unit are recognised whatever the cause is taken for, at a first warning too: only batches that are
# in it are changed.
FULL: Plan = {
    **{key: ["RescaleInputs", *plan] for key, plan in [*_NONFINITE.items(), *_EXPLODING.items()]},
    **_VANISHING,
}
GENTLE: Plan = {"nonfinite": ["SkipStep"], "exploding": ["ClipNorm", "ReduceLR"], "vanishing": []}
OBSERVE: Plan = {}
PRESETS: Mapping[str, Plan] = {"observe": OBSERVE, "gentle": GENTLE, "full": FULL}
DEFAULT_PLAN = FULL
