"""Where NaN and infinities come from."""

from __future__ import annotations

from grad_callbacks.detection.diagnosis import advice
from grad_callbacks.detection.diagnosis.exploding import aftermath, blame_batch, cause_of_explosion
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.probes import Probes

FAR = 1e3  # times the entries of the batch before: enough to overflow in a few layers


def cause_of_nonfinite(exam: Probes) -> Finding | None:
    """Decide, in the order of cause and effect: batch, weights, operation, overflow. None if nothing is known."""
    if exam.batch.nonfinite:
        return blame_batch(exam)
    explosion = aftermath(exam)
    if exam.has_bad_weights:
        if explosion is not None:
            return explosion
        if exam.is_diverging:
            return cause_of_explosion(exam)
        return Finding(
            "non-finite weights",
            "weights were NaN or infinite before the step",
            (
                "go back to the last checkpoint with finite weights: `Rollback`",
                advice.lower_rate(exam),
                advice.clip(exam),
            ),
        )
    origin = exam.origin
    if origin.source == "16-bit overflow":
        return _half(exam)
    # With finite gradients the weights have not diverged: the losses before were not finite for the same reason.
    reading = exam.case.reading
    if origin.source == "operation" and reading is not None and reading.is_finite and not reading.overflow:
        return _operation(exam)
    if explosion is not None:
        return explosion
    # exp of a diverged output is undefined for no fault of its own.
    if origin.source == "operation" and not exam.is_diverging:
        return _operation(exam)
    if reading is not None and reading.overflow:
        return _half(exam)
    if exam.batch.scale_ratio > FAR:
        return blame_batch(exam)
    if origin.source in ("overflow", "operation") or exam.is_diverging:
        return cause_of_explosion(exam)
    return None


def _where(exam: Probes) -> str:
    origin = exam.origin
    name = f"`{origin.operation}`" if origin.operation else "an operation"
    place = f" in {origin.module}" if origin.module else ""
    line = f" at {origin.line}" if origin.line and not origin.in_backward else ""
    return f"{name}{place}{line}"


def _operation(exam: Probes) -> Finding:
    origin = exam.origin
    made = "NaN" if origin.is_nan else "an infinity"
    when = "the backward pass: its derivative is undefined there" if origin.in_backward else "the forward pass"
    remedy = {
        "log": "`torch.log(x.clamp_min(1e-8))`, or `log_softmax` and `logsigmoid` instead",
        "sqrt": "`torch.sqrt(x + 1e-8)`",
        "div": "a denominator that cannot be 0: `x / y.clamp_min(1e-8)`",
        "exp": "`torch.logsumexp`, or a limit on what goes into `exp`",
    }
    lower = origin.operation.lower()
    first = next(
        (line for key, line in remedy.items() if key in lower), "keep its arguments where it is defined: `clamp`"
    )
    return Finding(
        "undefined operation",
        f"{_where(exam)} is the first to make {made} in {when}",
        (first, "skip such steps: `SkipStep`"),
        {"in_backward": float(origin.in_backward)},
    )


def _half(exam: Probes) -> Finding:
    origin = exam.origin
    found = "numbers grow beyond 65504, the largest that float16 holds"
    if origin.source == "16-bit overflow":
        found = f"{_where(exam)} grows beyond 65504, the largest number that float16 holds"
    module = f" around {origin.module}" if origin.module else ""
    return Finding(
        "16-bit overflow",
        found,
        (
            "`Trainer(precision='bf16-mixed')`",
            f"float32{module} and in the loss: `with torch.autocast(device_type, enabled=False)`",
            advice.normalise(exam),
        ),
    )
