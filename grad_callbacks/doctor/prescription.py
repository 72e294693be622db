"""What is printed at the end: what is wrong, which lines to change, what that gains and what it cost."""

from __future__ import annotations

import math

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.judging import ranked
from grad_callbacks.doctor.search import Outcome
from grad_callbacks.reporting.summary import count

SHOWN = 5  # trials that are listed where none has cured


def prescription(outcome: Outcome, report: str = "") -> str:
    """Return the text, in markdown that reads well in a terminal.

    Args:
        outcome: Of a search.
        report: Where the runs are, in words.
    """
    ill = outcome.ill
    if outcome.is_healthy:
        verdict = ill.verdict if ill.verdict != "no progress" else "no alert, and a loss that tells nothing of progress"
        seen = f"{verdict} in the first {ill.steps} steps; loss {_loss(ill, ill.began)} -> {_loss(ill, ill.ended)}"
        if ill.alerts:
            seen += f"; {ill.alerts} single events, the first of them: {ill.message}"
        return _joined([f"Nothing to prescribe: {seen}."], outcome, report)
    if ill.verdict == "not measured" and not ill.error:
        return _joined(["Not measured: no step with a gradient was seen, so nothing can be said."], outcome, report)
    is_told = outcome.is_cured and outcome.best is not None and not outcome.best.is_guarded
    lines = ["What is wrong:", f"  {_wrong(ill)}", *(f"  {told}" for told in _details(ill, not is_told))]
    best = outcome.best
    if best is None:
        lines += [
            "",
            f"Nothing helped: {count(len(outcome.tried), 'trial')}, none of which ends below the run as it is.",
        ]
    else:
        lines += ["", "What to change:" if outcome.is_cured else "Not cured. What helped most:"]
        lines += [f"  {line}" for line in best.lines]
        lines += ["", "Expected gain:", *(f"  {told}" for told in _gains(outcome, best))]
    if not outcome.is_cured and outcome.tried:
        lines += ["", "Trials, the best first:"]
        lines += [f"  {one.name}: {_result(one)}" for one in ranked(outcome.tried, ill)[:SHOWN]]
    if outcome.refused:
        lines += ["", "Not touched:", *(f"  {told}" for told in outcome.refused)]
    return _joined(lines, outcome, report)


def _joined(lines: list[str], outcome: Outcome, report: str) -> str:
    trainings = 1 + len(outcome.tried) + 2 * len(outcome.others)
    spent = outcome.ill.seconds + sum(one.seconds for one in outcome.tried)
    spent += sum(one.seconds + other.seconds for one, other in outcome.others)
    made = f"{count(len(outcome.tried), 'trial')}, {count(trainings, 'training')}"
    cost = f"Cost: {made} of {count(outcome.ill.steps, 'step')}, {spent:.0f} s."
    return "\n".join([*lines, "", cost, *([f"Report: {report}"] if report else [])])


def _wrong(ill: Attempt) -> str:
    if ill.error:
        return f"the training raised an error at step {ill.steps}: {ill.error}"
    if not ill.kind:
        return f"no progress: the loss is {_number(ill.ended)}, where it began with {_number(ill.began)}"
    return f"{ill.kind} gradients; likely cause: {ill.cause or 'unknown'}"


def _details(ill: Attempt, with_advice: bool) -> list[str]:
    told = [f"seen: {ill.message}"] if ill.message else []
    told += [f"the diagnosis advises: {ill.advice}"] if ill.advice and with_advice else []
    return [*told, f"the loss goes from {_loss(ill, ill.began)} to {_loss(ill, ill.ended)} in {ill.steps} steps"]


def _gains(outcome: Outcome, best: Attempt) -> list[str]:
    runs = [(outcome.ill, best), *outcome.others]
    told = []
    for before, after in runs:
        line = f"seed {before.seed}: loss {_loss(before, before.ended)} -> {_loss(after, after.ended)}"
        shared = [name for name in after.metrics if name in before.metrics and name.startswith("val")]
        line += "".join(
            f", {name} {_number(before.metrics[name])} -> {_number(after.metrics[name])}" for name in shared
        )
        told.append(f"{line}; {after.verdict}, {after.outcome}" if after.alerts else f"{line}; {after.verdict}")
    return told


def _result(attempt: Attempt) -> str:
    if attempt.error:
        return f"failed ({attempt.error})"
    return f"loss {_number(attempt.ended)}, {attempt.verdict}"


def _loss(attempt: Attempt, value: float) -> str:
    return _number(value) if attempt.curve else "unknown"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"
