"""Why the gradient grows."""

from __future__ import annotations

import math
from statistics import median

from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.batch_outlier import WINDOW
from grad_callbacks.detection.diagnosis.finding import CAUSES, Finding
from grad_callbacks.detection.diagnosis.probes import GROWN, LASTING, Probes
from grad_callbacks.detection.diagnosis.weight_gains import needed_gain

GROWTH = 10.0  # of the signal or the error over all layers; He's keeps it at 1
EXCESS = 1.3  # of a gain over the one that is needed; SELU, tanh with 5/3 and orthogonal weights are below or flat
LARGE = 30.0  # targets and errors of examples are about 1 where they are standardised and the loss is a mean
LARGE_LOSS = 1e3  # of untrained weights: cross-entropy starts at log(classes), a squared error of scaled targets at 1
USUAL_LOSS = 6.0  # above the first loss of most: log(400) is that of 400 classes
MIN_SKIPS = 3


def cause_of_explosion(exam: Probes) -> Finding:
    """Decide, most specific first: this one batch, what was wrong from the start, then the step."""
    if "recurrence" in exam.alert.evidence:
        return _recurrence(exam)  # nothing has grown that a batch or a step could be blamed for
    return blame_batch(exam) or blame_start(exam) or _rate(exam)


def blame_batch(exam: Probes) -> Finding | None:
    """Say whether this batch, or one shortly before it, is the cause."""
    # What follows a bad batch within an episode are its consequences: the first cause is the one to report.
    before = aftermath(exam)
    if before is not None and before.cause == "bad batch":
        return before
    if "readings_since_jump" in exam.alert.evidence and not exam.is_rate_raised:
        return _blame_jump(exam)
    batch = exam.batch
    seen: list[str] = []
    if batch.nonfinite:
        seen.append(f"{batch.nonfinite} of its entries are NaN or infinite")
    if batch.is_out_of_range:
        seen.append(f"its entries are {batch.scale_ratio:.2g} times as large as those of the batch before")
    if batch.stands_out and (seen or _neighbours_are_well(exam)):
        seen.append(f"its loss is {batch.loss_ratio:.2g} times its neighbours'")
    if not seen:
        return None
    index = exam.case.batch_index
    evidence = {**batch.evidence(), "previous_batch_loss_now": exam.previous_loss_now}
    if index is not None:
        evidence["batch_index"] = float(index)
    which = "the batch" if index is None else f"batch {index}"
    return Finding("bad batch", f"{which} is unlike the others: {' and '.join(seen)}", _batch_remedies(exam), evidence)


def _blame_jump(exam: Probes) -> Finding:
    """The loss of a batch, some readings ago, was far above those before it and those after."""
    ago, loss = exam.alert.evidence["readings_since_jump"], exam.alert.evidence["jump_loss"]
    seen = f"a batch {ago:.0f} readings ago had a loss of {loss:.3g}, and what had been learned is lost since"
    advices = (advice.clip(exam), "skip such batches: `SkipStep`", "look at the batches before the alert")
    return Finding("bad batch", seen, advices, exam.batch.evidence())


def aftermath(exam: Probes) -> Finding | None:
    """What was found at the explosion that has led to this alert, where it was seen better; None without one."""
    before = exam.explosion_before
    if before is None or before.cause not in CAUSES:
        return None
    found = before.message.rpartition("; ")[2]
    evidence = {"steps_since": float(exam.alert.step - before.step), **before.evidence, **exam.alert.evidence}
    return Finding(before.cause, f"since step {before.step}: {found}", (before.advice,), evidence)


def _neighbours_are_well(exam: Probes) -> bool:
    """True if the jump in the loss is this batch's own, and not that of the weights."""
    known = [value for value in exam.case.losses if math.isfinite(value)][-WINDOW:]
    usual = median(known)
    # The same weights on the batch before: if it has grown dearer too, a step was too long.
    now = exam.previous_loss_now
    if now > 0 and usual > 0:
        return math.log(now / usual) < 0.5 * math.log(exam.batch.loss_ratio)
    # Without it: bad batches come alone, a diverging run has a rising loss or a second alarm.
    return exam.alert.severity == "warning" and known[-1] < 2 * usual


def blame_start(exam: Probes) -> Finding | None:
    """Say whether the run was wrong from its first step; None if it is not known or too long ago."""
    structure = exam.structure
    if structure.recurrent and _explodes_through_time(exam):
        return _recurrence(exam)
    if not exam.tells_of_the_start:
        return _warm_up(exam)
    excess = exam.gain / needed_gain(exam.activation)
    over_all = exam.mean_field ** max(1, structure.depth) if exam.mean_field < 1e6 else math.inf
    # Targets are what they are, however far the weights have been thrown since.
    if exam.flow.target > LARGE:
        return _targets(exam)
    if not exam.is_normalised:
        # Each block adds its branch's variance: with gains that suit a plain net the signal doubles per block
        # (Zhang et al. 2019, Fixup, sec. 2). Larger gains are a fault of their own.
        if structure.skips >= MIN_SKIPS and not structure.norms and _grows_from_the_start(exam) and excess < 2:
            return _residual(exam)
        # Mean field: the error is multiplied by sqrt(chi) per layer (Schoenholz et al. 2017).
        if excess > EXCESS and over_all > GROWTH:
            return _weights(exam, over_all)
    return _targets(exam) or _warm_up(exam)


def _grows_from_the_start(exam: Probes) -> bool:
    """True if the signal grows over the layers, and not for weights that have grown since the first step."""
    if not exam.flow.growth > GROWTH:
        return False
    # A signal that had grown tenfold already has made the first loss large.
    return not exam.growth_of_weights > GROWN or not exam.first_loss < USUAL_LOSS


def _explodes_through_time(exam: Probes) -> bool:
    """True if the error grows with the steps back, or the weights let it (radius above 1, Pascanu et al. 2013)."""
    if exam.flow.through_time > GROWTH:
        return True
    if exam.structure.is_gated:
        return False
    # Weights that have grown in training were thrown there by the steps.
    return exam.first_radius > 1.05 or math.isnan(exam.first_radius)


def _targets(exam: Probes) -> Finding | None:
    flow = exam.flow
    # The gains are well, so nothing but targets, loss or inputs has made the first loss large.
    first = exam.first_loss
    outputs = flow.signal[-1] if flow.signal else math.nan
    by_error = flow.output_error > LARGE and flow.output_error > 10 * outputs
    if not (flow.target > LARGE or by_error or first > LARGE_LOSS):
        return None
    seen = (
        f"targets of size {flow.target:.2g}"
        if flow.target > LARGE
        else f"an error of {flow.output_error:.2g} per example"
    )
    if first > LARGE_LOSS and not (flow.target > LARGE or by_error):
        seen = f"a first loss of {first:.2g}"
    return Finding(
        "targets or loss too large",
        f"{seen} where about 1 is usual, so the rate that suits other losses is too high for this one",
        (
            "standardised targets: `targets = (targets - mean) / std`",
            "a mean instead of a sum: `reduction='mean'`, and no factor on the loss",
            advice.lower_rate(exam, 1e-2),
            advice.clip(exam),
        ),
        {"target_size": flow.target, "output_error": flow.output_error, "first_loss": first},
    )


def _warm_up(exam: Probes) -> Finding | None:
    # Post-LN transformers have large gradients near the output at the start (Xiong et al. 2020, theorem 1), and
    # Adam's first steps are of full size whatever the gradient (Liu et al. 2020, RAdam).
    structure = exam.structure
    is_open = not exam.is_warmed_up and exam.alert.step <= 2 * LASTING
    if not (is_open and exam.is_adaptive and structure.has_attention):
        return None
    if structure.skips and not structure.is_post_norm:
        return None
    optimizer = type(exam.case.optimizer).__name__
    return Finding(
        "missing warm-up",
        f"a post-norm transformer is trained by {optimizer} at its full rate from the start",
        (
            advice.warm_up(),
            "normalisation in front of each block: `nn.TransformerEncoderLayer(..., norm_first=True)`",
            advice.lower_rate(exam),
            advice.clip(exam),
        ),
        {"skips_from_norm": float(structure.skips_from_norm), **exam.step.evidence()},
    )


def _recurrence(exam: Probes) -> Finding:
    seen = (
        f"{', '.join(exam.structure.recurrent)} multiplies the error with the same weights at every step back in time"
    )
    if not math.isnan(exam.radius):
        seen += f", with a spectral radius of {exam.radius:.2g}"
    return Finding(
        "recurrence over many steps",
        seen,
        (
            advice.clip(exam),
            f"a gated cell: `nn.LSTM` or `nn.GRU` at {exam.structure.recurrent[0]}",
            f"orthogonal initialisation: `nn.init.orthogonal_({exam.structure.recurrent[0]}.weight_hh_l0)`",
            advice.lower_rate(exam),
        ),
        {"through_time": exam.flow.through_time, "spectral_radius": exam.radius},
    )


def _residual(exam: Probes) -> Finding:
    skips = exam.structure.skips
    return Finding(
        "unscaled residual branches",
        f"the signal grows {exam.flow.growth:.2g} times over {skips} skips without a normalisation",
        (
            f"scaled branches: `x = x + block(x) / {skips} ** 0.5`",
            "branches that start at zero: `nn.init.zeros_(...)` for the last weight of each block",
            "a normalisation at the head of each branch",
            advice.clip(exam),
        ),
        {"signal_growth": exam.flow.growth, "skips": float(skips), "weight_gain": exam.gain},
    )


def _weights(exam: Probes, over_all: float) -> Finding:
    needed = needed_gain(exam.activation)
    return Finding(
        "weights too large",
        f"the weights' gain is {exam.gain:.2g}, where {exam.activation or 'a linear layer'} needs {needed:.3g}",
        (advice.initialise(exam), advice.normalise(exam), advice.clip(exam), advice.lower_rate(exam)),
        {
            "weight_gain": exam.gain,
            "gain_needed": needed,
            "mean_field_factor": exam.mean_field,
            "mean_field_growth": over_all,
            "signal_growth": exam.flow.growth,
        },
    )


def _rate(exam: Probes) -> Finding:
    before = aftermath(exam)
    if before is not None:
        return before
    step, last = exam.step, exam.last_step_ratio
    seen = "the weights move further than the loss allows"
    if last > max(2.0, step.after / step.before if step.overshoots else 0.0):
        seen = f"the step before has made the loss of its own batch {last:.2g} times as large"
    elif step.overshoots:
        grown = f"{step.after / step.before:.2g} times as large" if math.isfinite(step.after) else "infinite"
        seen = f"the step makes the loss of its own batch {grown}"
        if not math.isnan(step.share):
            seen += f", {step.share:g} of it would lower it"
    elif exam.is_diverging:
        seen = "the loss was rising before"
    return Finding(
        "learning rate too high",
        seen,
        (
            advice.lower_rate(exam, step.share / 3 if step.share < 1 else math.nan),
            advice.clip(exam),
            advice.warm_up(),
            advice.normalise(exam),
        ),
        {**step.evidence(), "loss_ratio_of_last_step": last, **exam.batch.evidence()},
    )


def _batch_remedies(exam: Probes) -> tuple[str, ...]:
    index = exam.case.batch_index
    return (
        f"look at batch {index} of the epoch" if index is not None else f"look at the batch of step {exam.alert.step}",
        advice.clip(exam),
        "skip such batches: `SkipStep`",
        "a loss that outliers do not move: `nn.SmoothL1Loss`, label smoothing",
    )
