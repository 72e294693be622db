"""Decides why gradients explode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis import exploding_findings as findings
from grad_callbacks.detection.diagnosis.batch_outlier import BATCH_LIMITS
from grad_callbacks.detection.diagnosis.finding import CAUSES, Finding
from grad_callbacks.detection.diagnosis.probes import PROBE_LIMITS, Probes
from grad_callbacks.detection.diagnosis.weight_gains import LIMITS as GAINS
from grad_callbacks.detection.diagnosis.weight_gains import needed_gain


@dataclass(frozen=True)
class ExplosionCauseThresholds(Thresholds):
    """Thresholds of the decision why gradients explode."""

    growth: float = threshold(
        10.0,
        "growth of signal or error over all layers, over time, or from the output to the loss, that is too much",
        unit="x",
        source="He's initialisation keeps it at 1; not measured",
    )
    excess_gain: float = threshold(
        1.3,
        "gains beyond are too large",
        unit="x needed gain",
        source="SELU, tanh with gain 5/3 and orthogonal weights are below, or their error does not grow",
    )
    large: float = threshold(
        30.0,
        "size of inputs, of targets, and of an example's error, that is too large; the first squared error is at its "
        "square then",
        unit="RMS; gradient at the output",
        source="all are about 1 for standardised data and a mean loss; not measured",
    )
    growing_radius: float = threshold(
        1.05,
        "spectral radius of fresh recurrent weights beyond which the error may grow over time",
        unit="1",
        source="Pascanu et al. 2013, sec. 2.1: 1; the margin was not measured",
    )


LIMITS = ExplosionCauseThresholds()


def cause_of_explosion(probes: Probes) -> Finding:
    """Decide, most specific first: this batch, then what was wrong from the start, then the step size."""
    if probes.alert.evidence.recurrence is not None:
        return findings.recurrence(probes)  # nothing has grown yet that a batch or a step could have caused
    if probes.alert.evidence.well_at is not None:
        return findings.attention(probes)
    return batch_at_fault(probes) or _exponent(probes) or fault_from_the_start(probes) or _step_size(probes)


def _exponent(probes: Probes) -> Finding | None:
    """Return a finding if an exponential is taken of something that nothing bounds, and that has become large."""
    before = cause_before(probes)
    if before is not None and before.cause == "unbounded exponent":
        return before
    return findings.exponent(probes) if probes.exponent.is_large else None


def batch_at_fault(probes: Probes) -> Finding | None:
    """Return a finding if this batch, or one shortly before it, is the cause."""
    # What follows a bad batch within an episode is its consequence: the first cause is the one to report.
    before = cause_before(probes)
    if before is not None and before.cause == "bad batch":
        return before
    since_jump = probes.alert.evidence.readings_since_jump
    if since_jump is not None and not probes.is_rate_raised:
        return findings.earlier_batch(probes, since_jump)
    batch = probes.batch
    loss_stands_out = batch.stands_out and (
        bool(batch.nonfinite) or batch.is_out_of_range or _neighbours_are_normal(probes)
    )
    if not (batch.nonfinite or batch.is_out_of_range or loss_stands_out):
        return None
    return findings.this_batch(probes, loss_stands_out)


def cause_before(probes: Probes) -> Finding | None:
    """Return what was found at the explosion that has led to this alert; None without one."""
    before = probes.explosion_before
    if before is None or before.cause not in CAUSES:
        return None
    found = before.message.rpartition("; ")[2]
    evidence = {"steps_since": float(probes.alert.step - before.step), **before.evidence, **probes.alert.evidence}
    return Finding(before.cause, f"since step {before.step}: {found}", (before.advice,), evidence)


def fault_from_the_start(probes: Probes) -> Finding | None:
    """Return a finding if the run was wrong from its first step; None if that is unknown or too long ago."""
    structure = probes.structure
    if structure.recurrent and _explodes_through_time(probes):
        return findings.recurrence(probes)
    if not probes.reflects_initialisation:
        return findings.no_warm_up(probes) if _lacks_warm_up(probes) else None
    # Mean field: the error is multiplied by sqrt(chi) per layer (Schoenholz et al. 2017).
    over_all = math.inf
    if probes.mean_field < GAINS.largest_gain:
        over_all = probes.mean_field ** max(1, structure.depth)
    # Targets are what they are, however much the weights have changed since.
    if probes.flow.target > LIMITS.large:
        return _targets(probes)
    if probes.flow.inputs > LIMITS.large:
        return findings.inputs(probes)
    found = None if probes.is_normalised else _gains(probes, over_all)
    return found or _targets(probes) or (findings.no_warm_up(probes) if _lacks_warm_up(probes) else None)


def _neighbours_are_normal(probes: Probes) -> bool:
    """True if the jump in the loss comes from this batch, and not from the weights."""
    known = [value for value in probes.case.losses if math.isfinite(value)][-BATCH_LIMITS.window :]
    usual = median(known)
    # The same weights on the batch before: if its loss has grown too, a step was too long.
    now = probes.previous_loss_now
    if now > 0 and usual > 0:
        return now / usual < math.sqrt(probes.batch.loss_ratio)  # nearer to the usual one than to the jump
    # Without it: bad batches come alone, a diverging run has a rising loss or a second alarm.
    return probes.alert.severity == "warning" and known[-1] < BATCH_LIMITS.loss_ratio * usual


def _gains(probes: Probes, over_all: float) -> Finding | None:
    structure, excess = probes.structure, probes.gain / needed_gain(probes.activation)
    if excess > LIMITS.excess_gain and over_all > LIMITS.growth:
        return findings.weights(probes, over_all)
    # Each block adds its branch's variance: with gains that suit a plain net the signal doubles per block
    # (Zhang et al. 2019, Fixup, sec. 2).
    if structure.skips and not structure.norms and _grows_from_the_start(probes):
        return findings.residual(probes)
    return None


def _grows_from_the_start(probes: Probes) -> bool:
    """True if the signal grows over the layers, and not because weights have grown since the first step."""
    if not probes.flow.growth > LIMITS.growth:
        return False
    # A signal that grew tenfold from the start has made the first loss large.
    return not probes.have_weights_grown or not probes.first_loss < LIMITS.growth


def _explodes_through_time(probes: Probes) -> bool:
    """True if the weights that the run began with let the error grow with the steps back.

    Their radius is above 1 (Pascanu et al. 2013, sec. 2.1), or the error was seen to grow while the weights were still
    those of the start. Later, steps that are too long have made the weights grow: that is the rate's fault.
    """
    is_of_the_start = probes.reflects_initialisation and not probes.is_rate_raised and not probes.have_weights_grown
    if probes.flow.through_time > LIMITS.growth and is_of_the_start:
        return True
    if probes.structure.is_gated:
        return False
    if math.isnan(probes.first_radius):  # a cell of one's own
        return is_of_the_start and not probes.step.overshoots
    return probes.first_radius > LIMITS.growing_radius


def _targets(probes: Probes) -> Finding | None:
    # The gains are as they should be, so nothing but targets, loss or inputs has made the first loss large.
    flow = probes.flow
    if flow.target > LIMITS.large:
        return findings.targets(probes, "target RMS", flow.target)
    outputs = flow.signal[-1] if flow.signal else math.nan
    is_large = flow.output_error > LIMITS.large and flow.output_error > LIMITS.growth * outputs
    if is_large and not probes.have_weights_grown:  # else steps that were too long have made it large
        return findings.targets(probes, "the error per example", flow.output_error)
    if probes.first_loss > LIMITS.large**2:
        return findings.targets(probes, "the first loss", probes.first_loss)
    return None


def _lacks_warm_up(probes: Probes) -> bool:
    # Post-LN transformers have large gradients near the output at the start (Xiong et al. 2020, theorem 1), and
    # Adam's first steps are of full size whatever the gradient (Liu et al. 2020, RAdam).
    structure = probes.structure
    is_open = not probes.is_warmed_up and probes.alert.step <= 2 * PROBE_LIMITS.initialisation_matters
    if not (is_open and probes.is_adaptive and structure.has_attention):
        return False
    return structure.is_post_norm or not structure.skips


def _step_size(probes: Probes) -> Finding:
    return cause_before(probes) or findings.rate(probes)
