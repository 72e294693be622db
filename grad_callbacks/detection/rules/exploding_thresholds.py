"""Thresholds of the rule for exploding gradients."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class ExplodingThresholds(Thresholds):
    """Thresholds of :class:`~grad_callbacks.Exploding`; its arguments replace the first five."""

    factor: float = threshold(
        5.0,
        "a gradient norm beyond this multiple of the usual one is large",
        unit="x usual norm",
        source="measured: of 3, 4 and 5, tried with displacements of 0.3 to 0.5 on 33 digits set-ups, the one that "
        "raised no alarm on networks leaving a plateau",
    )
    displacement: float = threshold(
        0.5,
        "an update that changes all weights by more than this share of their norm is too large",
        unit="share of the weights' norm",
        source="measured: tried from 0.3 to 0.5 together with `factor` on 33 digits set-ups",
    )
    jump: float = threshold(
        100.0,
        "the same as `factor` for adaptive optimizers, against the largest of the last norms too",
        unit="x usual norm",
        source="formula: at 100, Adam with its default betas shrinks its steps more than threefold",
    )
    rise: float = threshold(
        1.3,
        "a loss beyond this multiple of the loss at the start has diverged",
        unit="x first loss",
        source="not measured",
    )
    growth: float = threshold(
        1e3,
        "the error at the early layers over that at the late ones from which on it explodes over depth",
        unit="early over late error",
        source="the inverse of the limit for vanishing (VanishingThresholds.ratio)",
    )
    chaotic_powers: float = threshold(
        2.0,
        "powers of ten by which chaotic recurrent weights multiply an error over a sequence",
        unit="powers of ten",
        source="measured: healthy recurrences of the corpus begin with 0 at most, one of radius 1.2 over 30 steps, "
        "which learns nothing, with 2.4",
    )
    harmful_update: float = threshold(
        4.0,
        "multiple of `displacement` that leaves nothing of the weights, before there is a usual norm",
        unit="x displacement",
        source="measured: healthy networks begin with up to 0.51 of their weights' norm, a deep sigmoid net with skips "
        "that learns with 1.1, regressions on raw targets with up to 2; failing ones from 2.5 on",
    )
    diverged_update: float = threshold(
        2.6,
        "multiple of `displacement` that first updates seldom recover from",
        unit="x displacement",
        source="measured: seven runs whose loss came down by itself had moved their weights by 0.60 to 0.80 of their "
        "norm, an eighth (RMSprop at 0.01) by 1.2; nearly all of the corpus whose loss did not by more",
    )


LIMITS = ExplodingThresholds()
