"""Acting: what changes training. One file per remedy."""

from __future__ import annotations

from grad_callbacks.remedies.base import Remedy
from grad_callbacks.remedies.clip_norm import ClipNorm
from grad_callbacks.remedies.clip_value import ClipValue
from grad_callbacks.remedies.optimizer_step import OptimizerStep
from grad_callbacks.remedies.reduce_lr import ReduceLR
from grad_callbacks.remedies.skip_step import SkipStep

REMEDIES: dict[str, type[Remedy]] = {
    "ClipNorm": ClipNorm,
    "ClipValue": ClipValue,
    "ReduceLR": ReduceLR,
    "SkipStep": SkipStep,
}

__all__ = ["REMEDIES", "ClipNorm", "ClipValue", "OptimizerStep", "ReduceLR", "Remedy", "SkipStep"]
