"""Thresholds of the rule for vanishing gradients."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class VanishingThresholds(Thresholds):
    """Thresholds of :class:`~grad_callbacks.Vanishing`; all are its arguments."""

    ratio: float = threshold(
        1e-3,
        "the gradient vanishes over depth if the early layers' is below this share of the late layers'",
        unit="early over late gradient",
        source="AutoTrainer (Zhang et al. 2021, ICSE, sec. III)",
    )
    motion: float = threshold(
        1e-4,
        "early layers stand still if an update changes them by less",
        unit="share of the weights' norm per step",
        source="TheDeepChecker's lower limit (Ben Braiek & Khomh 2023, TOSEM): a thousand such steps change a weight "
        "by a tenth at most",
    )
    patience: int = threshold(
        10,
        "readings in a row for which both must hold",
        unit="readings",
        source="zero-initialised blocks and adapters pass within a few",
    )
    through_time: float = threshold(
        1e-8,
        "the gradient vanishes over time if the early steps' is below this share of the late steps'",
        unit="early over late gradient",
        source="below float32's precision of 1e-7 the early steps' share is lost in the sum; measured: a GRU that "
        "began at 5e-6 learned after 150 steps",
    )


LIMITS = VanishingThresholds()
