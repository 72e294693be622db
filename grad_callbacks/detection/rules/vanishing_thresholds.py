"""Thresholds of the rule for vanishing gradients."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class VanishingThresholds(Thresholds):
    """Thresholds of :class:`~grad_callbacks.Vanishing`; its arguments replace the first four."""

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

    early_part: int = threshold(
        3,
        "the first 1/3 of the layers are the early ones; fewer layers have none",
        unit="1",
        source="the same as in early_to_late",
    )
    fitted_layers: int = threshold(
        5,
        "layers with weights from which on a decay is judged by `ratio`; below, by its square",
        unit="layers",
        source="over fewer layers a single unlike one looks like a decay; not measured",
    )
    nothing_learned: float = threshold(
        0.05,
        "a loss that has come down by less has learned nothing",
        unit="share of the loss at the start",
        source="what a head learns by its bias alone; not measured",
    )
    much_left: float = threshold(
        0.5,
        "a loss below this has been learned by more than the last layers",
        unit="share of the loss at the start",
        source="not measured",
    )

    independence: float = threshold(
        1.2e-7,
        "the loss does not depend on the weights if the first-order effect of changing all of them by their whole norm "
        "is a smaller share of it",
        unit="share of the loss",
        source="IEEE 754: the spacing of float32, in which the loss itself is rounded",
    )

    stalled_patience: int = threshold(
        5,
        "multiple of `patience` for which nothing may be learned, where the early layers move",
        unit="x patience",
        source="not measured",
    )
    stalled_power: float = threshold(
        1.5,
        "exponent applied to `ratio` there",
        unit="1",
        source="measured: networks of five sigmoid layers begin at `ratio` and leave their plateau",
    )
    plateau_patience: int = threshold(
        10,
        "the same where the last layers have learned something",
        unit="x patience",
        source="not measured",
    )
    slow_patience: int = threshold(
        4, "the same where, besides, the early layers hardly move", unit="x patience", source="not measured"
    )
    slow_power: float = threshold(
        0.9, "exponent applied to `ratio` there: 1e-3 ** 0.9 = 2e-3", unit="1", source="not measured"
    )
    slow_motion: float = threshold(
        5.0,
        "multiple of `motion` below which early layers hardly move",
        unit="x motion",
        source="measured: a network of five sigmoid layers that recovered by itself reached 50 times `motion`",
    )

    spoilt_ratio: float = threshold(
        5e-3,
        "early over late gradient after first steps that were too long",
        unit="early over late gradient",
        source="measured: of 414 healthy runs none was there for three readings",
    )
    spoilt_fall: float = threshold(
        50.0, "how many times smaller than at the first reading it must be then", unit="1", source="not measured"
    )


LIMITS = VanishingThresholds()
