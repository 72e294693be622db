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

    norm_rise: float = threshold(
        2.0,
        "where the loss has risen, a norm beyond this multiple of the first or the usual one confirms it",
        unit="x first or usual norm",
        source="not measured",
    )
    early_readings: int = threshold(
        20, "readings that count as the start of a run", unit="readings", source="not measured"
    )
    remembered_updates: int = threshold(
        20, "latest updates whose size is remembered", unit="readings", source="not measured"
    )
    diverged_update: float = threshold(
        2.6,
        "multiple of `displacement` that first updates seldom recover from",
        unit="x displacement",
        source="measured: seven runs whose loss came down by itself had moved their weights by 0.60 to 0.80 of their "
        "norm, an eighth (RMSprop at 0.01) by 1.2; all 27 of the corpus whose loss did not by 1.0 or more",
    )

    harmful_rise: float = threshold(
        0.1,
        "a large update does harm only if the loss has risen by this share of the loss at the start, and",
        unit="share of the first losses' largest",
        source="not measured",
    )
    harmful_loss: float = threshold(
        0.5, "is above this share of it", unit="share of the first losses' largest", source="not measured"
    )
    harmful_update: float = threshold(
        20.0,
        "multiple of `displacement` that does harm whatever the loss",
        unit="x displacement",
        source="not measured",
    )

    growing_first_update: float = threshold(
        20.0,
        "before there is a usual norm: multiple of `displacement` that is too large while the norm grows",
        unit="x displacement",
        source="not measured",
    )
    recurrent_first_update: float = threshold(
        4.0, "the same in a recurrent network, growing or not", unit="x displacement", source="not measured"
    )
    deep_first_update: float = threshold(
        100.0, "the same in a product of several layers, growing or not", unit="x displacement", source="not measured"
    )
    product_layers: int = threshold(
        3,
        "layers with weights from which on the product of their weights matters",
        unit="layers",
        source="not measured",
    )

    jump_divisor: float = threshold(
        3.0, "`jump` over this is enough where the loss jumps too", unit="1", source="not measured"
    )
    loss_jump: float = threshold(
        10.0,
        "multiple of the largest of the first losses that a loss jumps to",
        unit="x first losses' largest",
        source="not measured",
    )
    aftermath_readings: int = threshold(
        20, "readings in which a jump of the norm shows its consequences", unit="readings", source="not measured"
    )
    progress_lost: float = threshold(
        0.5,
        "what has been learned is lost if the loss has gone back so far from its best to its start",
        unit="share of the gain",
        source="the corpus calls a run's loss lost by the same measure (experiments.corpus.labels.HALF)",
    )
    loss_diverged_divisor: float = threshold(
        5.0,
        "`displacement` over this is the largest recent update at least where the loss has diverged: without any the "
        "loss may have been multiplied",
        unit="1",
        source="not measured",
    )
    progress_lost_divisor: float = threshold(
        20.0,
        "the same where a jump of the norm has cost progress: else the batches may have become harder",
        unit="1",
        source="not measured",
    )
    jump_is_over: float = threshold(
        3.0, "a jump of the loss is over below this multiple", unit="x first losses' largest", source="not measured"
    )
    lost_readings: int = threshold(
        20,
        "readings in a row for which it must be lost, with a large norm in half of them",
        unit="readings",
        source="not measured; a spike that comes back by itself is shorter",
    )
    lost_after_jump: int = threshold(
        3, "the same after a jump of the norm, whatever the norm", unit="readings", source="not measured"
    )

    fitted_layers: int = threshold(
        5, "layers over which a growth per layer can be fitted", unit="layers", source="not measured"
    )
    growth_divisor: float = threshold(
        10.0, "`growth` over this is enough where the update is too large", unit="1", source="not measured"
    )
    stuck_readings: int = threshold(
        80,
        "losses after which a recurrent network should have learned something",
        unit="losses",
        source="100 readings after the start a network is not initialised again, so it must be seen before",
    )
    chaotic_powers: float = threshold(
        2.0,
        "powers of ten by which chaotic recurrent weights multiply an error over a sequence",
        unit="powers of ten",
        source="FirstStepThresholds.depth_growth, the same over the layers of fresh weights",
    )

    jump_in_a_row: int = threshold(
        2,
        "readings in a row: a jump of the norm",
        unit="readings",
        source="adaptive optimizers recover from a single hard example",
    )
    diverged_early_in_a_row: int = threshold(
        2, "readings in a row: divergence at the start", unit="readings", source="not measured"
    )
    unsettled_early_in_a_row: int = threshold(
        5,
        "readings in a row: the same after smaller updates",
        unit="readings",
        source="measured: RMSprop often begins so, its first steps are ten times as long as later ones; seven runs "
        "recovered by themselves",
    )
    loss_diverged_in_a_row: int = threshold(
        3, "readings in a row: divergence of the loss", unit="readings", source="not measured"
    )
    growth_in_a_row: int = threshold(3, "readings in a row: growth over depth", unit="readings", source="not measured")
    sustained_readings: int = threshold(
        3,
        "a second alarm within so many readings is a diverging run, a later one another bad batch",
        unit="readings",
        source="not measured",
    )

    near_first_update: float = threshold(
        10.0,
        "multiple of `displacement` in the first update that explains why the next reading is not finite",
        unit="x displacement",
        source="not measured",
    )
    near_loss: float = threshold(
        10.0, "the same for a later loss, next to a large norm", unit="x first loss", source="not measured"
    )
    named_share: float = threshold(
        0.9,
        "an alert names the layers that together make up this share of the squared norm",
        unit="share of the squared norm",
        source="not measured",
    )
    reference_displacement: float = threshold(
        0.1,
        "without a usual norm, the reference is the norm whose update changes the weights by this share",
        unit="share of the weights' norm",
        source="not measured",
    )


LIMITS = ExplodingThresholds()
