"""Acting: what changes training. One file per remedy."""

from __future__ import annotations

from grad_callbacks.remedies.adaptive_clip import AdaptiveClip
from grad_callbacks.remedies.agc import AGC
from grad_callbacks.remedies.base import Remedy
from grad_callbacks.remedies.clip_norm import ClipNorm
from grad_callbacks.remedies.clip_value import ClipValue
from grad_callbacks.remedies.floor_norm import FloorNorm
from grad_callbacks.remedies.optimizer_step import OptimizerStep
from grad_callbacks.remedies.reduce_lr import ReduceLR
from grad_callbacks.remedies.skip_step import SkipStep

REMEDIES: dict[str, type[Remedy]] = {
    "ClipNorm": ClipNorm,
    "ClipValue": ClipValue,
    "AdaptiveClip": AdaptiveClip,
    "AGC": AGC,
    "FloorNorm": FloorNorm,
    "ReduceLR": ReduceLR,
    "SkipStep": SkipStep,
}

CLIPS: tuple[type[Remedy], ...] = (ClipNorm, ClipValue, AdaptiveClip, AGC)  # what a Trainer that clips does already

__all__ = [
    "AGC",
    "CLIPS",
    "REMEDIES",
    "AdaptiveClip",
    "ClipNorm",
    "ClipValue",
    "FloorNorm",
    "OptimizerStep",
    "ReduceLR",
    "Remedy",
    "SkipStep",
]
