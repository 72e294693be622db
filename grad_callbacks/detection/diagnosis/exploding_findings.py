"""What the diagnosis says about each cause of exploding gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.probes import Probes
from grad_callbacks.detection.diagnosis.weight_gains import needed_gain
from grad_callbacks.detection.plain_numbers import rounded


@dataclass(frozen=True)
class ExplosionAdviceThresholds(Thresholds):
    """Numbers in the advice on exploding gradients."""

    rate_margin: float = threshold(
        3.0,
        "the rate to take is so many times smaller than the one that lowers the loss",
        unit="1",
        source="not measured",
    )


LIMITS = ExplosionAdviceThresholds()


def this_batch(probes: Probes, loss_stands_out: bool) -> Finding:
    """The batch of the alert's step is unlike the others."""
    batch, index = probes.batch, probes.case.batch_index
    seen: list[str] = []
    if batch.nonfinite:
        seen.append(f"{batch.nonfinite} of its entries are NaN or infinite")
    if batch.is_out_of_range:
        seen.append(f"its entries are {rounded(batch.scale_ratio)} times as large as those of the batch before")
    if loss_stands_out:
        seen.append(f"its loss is {rounded(batch.loss_ratio)} times that of the batches before")
    evidence = {**batch.evidence(), "previous_batch_loss_now": probes.previous_loss_now}
    if index is not None:
        evidence["batch_index"] = float(index)
    which = "the batch" if index is None else f"batch {index}"
    return Finding("bad batch", f"{which} is unlike the others: {' and '.join(seen)}", _batch_advice(probes), evidence)


def earlier_batch(probes: Probes, ago: float) -> Finding:
    """The loss of a batch, ``ago`` readings ago, was far above those before it and those after."""
    loss = probes.alert.evidence.jump_loss
    had = "the norm jumped" if loss is None else f"a batch had a loss of {rounded(loss)}"
    when = "one reading ago" if ago == 1 else f"{ago:.0f} readings ago"
    seen = f"{when} {had}, and what had been learned is lost since"
    advices = (advice.clip(probes), "skip such batches: `SkipStep`", "look at the batches before the alert")
    # Without the loss of that batch there is nothing to compare.
    return Finding("bad batch", seen, advices, {} if loss is None else probes.batch.evidence())


def targets(probes: Probes, what: str, size: float) -> Finding:
    """The loss, or what it is taken against, is far larger than usual."""
    return Finding(
        "targets or loss too large",
        f"{what} is {rounded(size)} (about 1 is typical), so the learning rate is too high for a loss of this scale",
        (
            "standardised targets: `targets = (targets - mean) / std`",
            "a mean instead of a sum: `reduction='mean'`, and no factor on the loss",
            advice.lower_rate(probes),
            advice.clip(probes),
        ),
        {
            "target_size": probes.flow.target,
            "output_error": probes.flow.output_error,
            "first_loss": probes.first_loss,
        },
    )


def inputs(probes: Probes) -> Finding:
    """What the first layer is given is far larger than usual."""
    size = probes.flow.inputs
    return Finding(
        "inputs too large",
        f"the root mean square of the inputs is {rounded(size)} (about 1 is typical); first outputs and "
        "gradients are as much too large",
        (
            "standardised inputs: `inputs = (inputs - mean) / std`, each feature by itself",
            "a normalisation in front: `nn.BatchNorm1d(features, affine=False)`",
            advice.lower_rate(probes, 1 / size**2),
            advice.clip(probes),
        ),
        {"input_size": size, "first_loss": probes.first_loss},
    )


def no_warm_up(probes: Probes) -> Finding:
    """A post-norm transformer is trained without a warm-up."""
    optimizer = type(probes.case.optimizer).__name__
    return Finding(
        "missing warm-up",
        f"{optimizer} trains a post-norm transformer at the full learning rate from the first step",
        (
            advice.warm_up(probes),
            "normalisation before each block: `nn.TransformerEncoderLayer(..., norm_first=True)`",
            advice.lower_rate(probes),
            advice.clip(probes),
        ),
        {"skips_from_norm": float(probes.structure.skips_from_norm), **probes.step.evidence()},
    )


def recurrence(probes: Probes) -> Finding:
    """The error grows over the steps of a sequence."""
    name = probes.structure.recurrent[0]
    seen = f"{', '.join(probes.structure.recurrent)} multiplies the error by the same weights at every time step"
    if not math.isnan(probes.radius):
        seen += f", with a spectral radius of {rounded(probes.radius)}"
    return Finding(
        "recurrence over many steps",
        seen,
        (
            advice.clip(probes),
            "" if probes.structure.is_gated else f"a gated cell: `nn.LSTM` or `nn.GRU` at {name}",
            f"orthogonal initialisation: `nn.init.orthogonal_({name}.weight_hh_l0)`",
            advice.lower_rate(probes),
        ),
        {"through_time": probes.flow.through_time, "spectral_radius": probes.radius},
    )


def residual(probes: Probes) -> Finding:
    """Each residual branch adds to the signal."""
    skips = probes.structure.skips
    return Finding(
        "unscaled residual branches",
        f"the signal grows {rounded(probes.flow.growth)}-fold over {skips} residual connections without normalisation",
        (
            f"scaled branches: `x = x + block(x) / {skips} ** 0.5`",
            "branches that start at zero: `nn.init.zeros_(...)` for the last weight of each block",
            "a normalisation at the start of each branch",
            advice.clip(probes),
        ),
        {"signal_growth": probes.flow.growth, "skips": float(skips), "weight_gain": probes.gain},
    )


def weights(probes: Probes, over_all: float) -> Finding:
    """The weights amplify signal and error at every layer."""
    needed = needed_gain(probes.activation)
    layer = probes.activation or "a linear layer"
    return Finding(
        "weights too large",
        f"the weights' gain is {rounded(probes.gain)}, but {layer} needs {rounded(needed)}",
        (advice.initialise(probes), advice.normalise(probes), advice.clip(probes), advice.lower_rate(probes)),
        {
            "weight_gain": probes.gain,
            "gain_needed": needed,
            "mean_field_factor": probes.mean_field,
            "mean_field_growth": over_all,
            "signal_growth": probes.flow.growth,
        },
    )


def rate(probes: Probes) -> Finding:
    """Steps are too long."""
    step, last = probes.step, probes.last_step_ratio
    return Finding(
        "learning rate too high",
        _overshooting(probes),
        (
            advice.lower_rate(probes, step.share / LIMITS.rate_margin if step.share < 1 else math.nan),
            "" if probes.is_adaptive and not probes.structure.has_attention else advice.clip(probes),
            advice.warm_up(probes),
            advice.shorter_memory(probes),
            advice.normalise(probes),
        ),
        {**step.evidence(), "loss_ratio_of_last_step": last, **probes.batch.evidence()},
    )


def exponent(probes: Probes) -> Finding:
    """What the model puts out is an exponent, and nothing bounds it."""
    found = probes.exponent
    where = f" in {found.module}" if found.module else ""
    line = f" at {found.line}" if found.line else ""
    return Finding(
        "unbounded exponent",
        f"`{found.operation}`{where}{line} is taken of {rounded(found.argument)}, so that each step of 1 in its "
        "argument makes loss and gradient almost three times as large",
        (
            "a bound on the argument: `torch.exp(x.clamp(max=5))`, or `5 * torch.tanh(x / 5)` inside",
            "`nn.functional.softplus(x)` in place of `torch.exp(x)` for what must be positive",
            advice.clip(probes),
            advice.lower_rate(probes),
        ),
        {"exponent": found.argument},
    )


def attention(probes: Probes) -> Finding:
    """The scores of attention have grown until its softmax chooses single positions."""
    return Finding(
        "saturated attention",
        "where the scores are that large the softmax passes no gradient back, so that what is attended to is not "
        "learned any more",
        (advice.normalise_scores(), advice.lower_rate(probes), advice.warm_up(probes)),
    )


def _overshooting(probes: Probes) -> str:
    step, last = probes.step, probes.last_step_ratio
    if last > max(1.0, step.after / step.before if step.overshoots else 0.0):
        return f"the step before made the loss of its own batch {rounded(last)} times as large"
    if step.overshoots:
        grown = f"{rounded(step.after / step.before)} times as large" if math.isfinite(step.after) else "infinite"
        smaller = "" if math.isnan(step.share) else f", {step.share:g} of it would lower it"
        return f"the step makes the loss of its own batch {grown}{smaller}"
    if probes.is_diverging:
        return "the loss was rising before"
    return "updates overshoot: the loss increases along the step"


def _batch_advice(probes: Probes) -> tuple[str, ...]:
    index = probes.case.batch_index
    return (
        f"look at batch {index} of the epoch"
        if index is not None
        else f"look at the batch of step {probes.alert.step}",
        advice.clip(probes),
        "skip such batches: `SkipStep`",
        "a loss that is robust to outliers: `nn.SmoothL1Loss`, label smoothing",
    )
