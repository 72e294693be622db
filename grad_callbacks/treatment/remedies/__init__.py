"""Acting: what changes training. One file per remedy."""

from __future__ import annotations

from grad_callbacks.treatment.remedies.adaptive_clip import AdaptiveClip
from grad_callbacks.treatment.remedies.adaptive_step import AdaptiveStep
from grad_callbacks.treatment.remedies.agc import AGC
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.remedies.clip_norm import ClipNorm
from grad_callbacks.treatment.remedies.clip_value import ClipValue
from grad_callbacks.treatment.remedies.full_precision import FullPrecision
from grad_callbacks.treatment.remedies.mask_undefined import MaskUndefined
from grad_callbacks.treatment.remedies.reduce_lr import ReduceLR
from grad_callbacks.treatment.remedies.reinitialize import Reinitialize
from grad_callbacks.treatment.remedies.rescale_inputs import RescaleInputs
from grad_callbacks.treatment.remedies.rollback import Rollback
from grad_callbacks.treatment.remedies.skip_step import SkipStep
from grad_callbacks.treatment.remedies.standardize_inputs import StandardizeInputs
from grad_callbacks.treatment.remedies.warmup import Warmup

REMEDIES: dict[str, type[Remedy]] = {
    "ClipNorm": ClipNorm,
    "ClipValue": ClipValue,
    "AdaptiveClip": AdaptiveClip,
    "AGC": AGC,
    "ReduceLR": ReduceLR,
    "Warmup": Warmup,
    "SkipStep": SkipStep,
    "MaskUndefined": MaskUndefined,
    "Rollback": Rollback,
    "Reinitialize": Reinitialize,
    "RescaleInputs": RescaleInputs,
    "StandardizeInputs": StandardizeInputs,
    "FullPrecision": FullPrecision,
    "AdaptiveStep": AdaptiveStep,
}

__all__ = [
    "AGC",
    "REMEDIES",
    "AdaptiveClip",
    "AdaptiveStep",
    "ClipNorm",
    "ClipValue",
    "FullPrecision",
    "MaskUndefined",
    "ReduceLR",
    "Reinitialize",
    "Remedy",
    "RescaleInputs",
    "Rollback",
    "SkipStep",
    "StandardizeInputs",
    "Warmup",
]
