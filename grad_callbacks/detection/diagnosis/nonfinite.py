"""Decides where NaN and infinities come from."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.divided_by_zero import DividedByZero, divided_by_zero
from grad_callbacks.detection.diagnosis.exploding import batch_at_fault, cause_before, cause_of_explosion
from grad_callbacks.detection.diagnosis.exploding_findings import exponent
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.probes import Probes


@dataclass(frozen=True)
class NonFiniteCauseThresholds(Thresholds):
    """Thresholds of the decision where NaN and infinities come from."""

    overflowing_scale: float = threshold(
        1e3,
        "entries of a batch beyond this are to blame for an overflow",
        unit="x size of the batch before",
        source="enough to overflow in a few layers; not measured",
    )


LIMITS = NonFiniteCauseThresholds()
# By a part of the operation's name; the first that fits.
_CURES = {
    "ctc": "`CTCLoss(zero_infinity=True)`, or at least as many frames as labels, plus one for each repeated label",
    "logdet": "a matrix that is not singular: `torch.slogdet(x + 1e-6 * torch.eye(n))`",
    "log": "`torch.log(x.clamp_min(1e-8))`, or `log_softmax` and `logsigmoid` instead",
    "sqrt": "`torch.sqrt(x + 1e-8)`",
    "norm": "an epsilon below the root: `(x.square().sum(-1) + 1e-8).sqrt()`",
    "cdist": "an epsilon below the root: `((x - y).square().sum(-1) + 1e-8).sqrt()`",
    "div": "a denominator that cannot be 0: `x / y.clamp_min(1e-8)`",
    "reciprocal": "a denominator that cannot be 0: `1 / x.clamp_min(1e-8)`",
    "logsumexp": "a mask that leaves an entry in every row",
    "softmax": "a mask that leaves an entry in every row",
    "exp": "`torch.logsumexp`, or a limit on the input of `exp`",
    "nll_loss": "no batch whose targets are all ignored: `drop_last=True`, or a sum over at least one",
    "mean": "no mean of nothing: `drop_last=True`, or skip an empty selection",
    "median": "no median of nothing: `drop_last=True`, or skip an empty selection",
    "std": "a spread that cannot be 0, of at least two entries: `(x.var(...) + 1e-8).sqrt()`",
    "var": "a variance of at least two entries: `drop_last=True`, or `correction=0`",
    "acos": "arguments within the range: `x.clamp(-1 + 1e-6, 1 - 1e-6)`",
    "asin": "arguments within the range: `x.clamp(-1 + 1e-6, 1 - 1e-6)`",
    "atanh": "arguments within the range: `x.clamp(-1 + 1e-6, 1 - 1e-6)`",
    "erfinv": "arguments within the range: `x.clamp(-1 + 1e-6, 1 - 1e-6)`",
    "ndtri": "arguments within the range: `x.clamp(1e-6, 1 - 1e-6)`",
    "linalg": "a matrix that is not singular: `x + 1e-6 * torch.eye(n)`",
    "": "clamp its inputs to where it is defined: `torch.clamp`",
}


def cause_of_nonfinite(probes: Probes) -> Finding | None:
    """Decide, in the order of cause and effect: batch, weights, operation, overflow. None if nothing is known."""
    if probes.batch.nonfinite:
        return batch_at_fault(probes)
    explosion = cause_before(probes)
    if probes.has_bad_weights:
        if (divided := divided_by_zero(probes.case.optimizer)) is not None:
            return _by_the_optimizer(probes, divided)
        if explosion is not None:
            return explosion
        if probes.is_diverging:
            return cause_of_explosion(probes)
        return Finding(
            "non-finite weights",
            "weights were already NaN or infinite before the step",
            (
                "go back to the last weights that were finite: `Rollback`",
                advice.lower_rate(probes),
                advice.clip(probes),
            ),
        )
    origin = probes.origin
    if origin.source == "16-bit overflow":
        return _half(probes)
    # With finite gradients the weights have not diverged: the losses before were not finite for the same reason.
    reading = probes.case.reading
    if origin.source == "operation" and reading is not None and reading.is_finite and not reading.overflow:
        return _operation(probes)
    if explosion is not None:
        return explosion
    # The exp of a diverged output overflows although the operation is right.
    if origin.source == "operation" and not probes.is_diverging:
        return _operation(probes)
    if reading is not None and reading.overflow:
        return _half(probes)
    if probes.batch.scale_ratio > LIMITS.overflowing_scale:
        return batch_at_fault(probes)
    if origin.source in ("overflow", "operation") or probes.is_diverging:
        return cause_of_explosion(probes)
    return None


def _where(probes: Probes) -> str:
    origin = probes.origin
    name = f"`{origin.operation}`" if origin.operation else "an operation"
    place = f" in {origin.module}" if origin.module else ""
    line = f" at {origin.line}" if origin.line else ""
    return f"{name}{place}{line}"


def _operation(probes: Probes) -> Finding:
    origin = probes.origin
    if not origin.is_nan and probes.exponent.is_large and "exp" in origin.operation.lower():
        return exponent(probes)
    made = "NaN" if origin.is_nan else "infinity"
    when = "the backward pass: its derivative is undefined there" if origin.in_backward else "the forward pass"
    lower = origin.operation.lower()
    first = next((line for key, line in _CURES.items() if key in lower), _CURES[""])
    return Finding(
        "undefined operation",
        f"{_where(probes)} is the first operation to return {made}, in {when}",
        (first, "skip such steps: `SkipStep`"),
        {"in_backward": float(origin.in_backward)},
    )


def _by_the_optimizer(probes: Probes, found: DividedByZero) -> Finding:
    optimizer, kind = type(probes.case.optimizer).__name__, str(found.dtype).removeprefix("torch.")
    return Finding(
        "non-finite weights",
        f"{optimizer} has made them so itself: what it averages is finite, and it has divided by a root of 0 plus "
        f"eps={found.eps:g}, which is 0 in {kind}",
        (
            f"`{optimizer}(..., eps={found.cure:.2g})`",
            "weights in float32: `Trainer(precision='bf16-mixed')`" if found.eps > 0 else "",
            "go back to the last weights that were finite: `Rollback`",
        ),
        {"eps": found.eps},
    )


def _half(probes: Probes) -> Finding:
    origin = probes.origin
    found = "numbers exceed 65504, the largest of float16"
    if origin.source == "16-bit overflow":
        found = f"the output of {_where(probes)} exceeds 65504, the largest number of float16"
    module = f" around {origin.module}" if origin.module else ""
    return Finding(
        "16-bit overflow",
        found,
        (
            "`Trainer(precision='bf16-mixed')`",
            f"float32{module} and in the loss: `with torch.autocast(device_type, enabled=False)`",
            advice.normalise(probes),
        ),
    )
