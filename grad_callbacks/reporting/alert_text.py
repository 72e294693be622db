"""The words for alerts, interventions and trials: the same on the console, in messages and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.events import KINDS, Alert, Intervention, TrialResult


@dataclass(frozen=True)
class AlertTextThresholds(Thresholds):
    """How long the lines of an alert get."""

    line: int = threshold(
        110, "a further clause that would make a line longer is left out", unit="characters", source="not measured"
    )
    names: int = threshold(3, "layers or other names that a line lists", unit="names", source="not measured")


LIMITS = AlertTextThresholds()

_SEPARATOR = "; "  # between the clauses of a message or of an advice
_OWN_LINES = ("steps", "trial")  # entries of an intervention's detail that have a line of their own


def kind_text(kind: str) -> str:
    """Return what a kind of alert is called in a sentence: ``exploding gradients``, but ``plateau``."""
    return f"{kind} gradients" if kind in KINDS else kind


def heading(alert: Alert) -> str:
    """Return step, kind and severity of an alert."""
    return f"step {alert.step}: {kind_text(alert.kind)} ({alert.severity})"


def alert_lines(alert: Alert) -> list[str]:
    """Return at most three short lines: what was seen, the likely cause with the layers, the first thing to change.

    A line has about 110 characters, and more only where a single clause is longer. Further clauses and advice are left
    to the report. A line with nothing to say is left out.
    """
    head = heading(alert)
    short = replace(alert, message=_first_clauses(alert.message, LIMITS.line - len(head)), advice=first_advice(alert))
    seen, *others = alert_parts(short, LIMITS.names)
    return [f"{head}: {seen}" if seen else head, *(text for text in others if text)]


def first_advice(alert: Alert) -> str:
    """Return the first thing to change; empty where none is known."""
    return _plain("".join(_clauses(alert.advice)[:1]))


def alert_parts(alert: Alert, names: int) -> tuple[str, str, str]:
    """Return what was seen, the likely cause with the layers, and all advice; each is empty where nothing is known.

    Args:
        alert: The alert.
        names: How many layers are named; the rest is counted.
    """
    cause, change, where = _plain(alert.cause), _plain(alert.advice), first_names(alert.layers, names)
    if cause:
        cause = f"likely cause: {cause}{f' (seen in {where})' if where else ''}"
    elif where:
        cause = f"seen in {where}"
    return _plain(alert.message), cause, f"what to change: {change}" if change else ""


def intervention_line(made: Intervention) -> str:
    """Return one sentence: when, which remedy, against what, and with what."""
    detail = detail_text(made)
    return (
        f"step {made.step}: {made.remedy} switched on against {kind_text(made.alert_kind)}"
        f"{f' ({detail})' if detail else ''}"
    )


def trial_line(result: TrialResult) -> str:
    """Return one sentence: when, which remedy did best, and each one's loss."""
    best = {"": "no remedy gave a finite loss", "none": "no remedy did best"}.get(
        result.winner, f"{result.winner} did best"
    )
    losses = f"; final losses: {result.told}" if result.scores else ""
    return f"step {result.step}: in a trial against {kind_text(result.alert_kind)} {best}{losses}"


def detail_text(made: Intervention) -> str:
    """Return with what a remedy was applied: names and rounded numbers."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in made.detail.items() if name not in _OWN_LINES)


def value_text(value: Any) -> str:
    """Return a plain value: numbers with three digits, of a long list the first entries."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return first_names([value_text(entry) for entry in value])
    return first_names(value.split(", ")) if isinstance(value, str) else str(value)


def first_names(names: Sequence[str], most: int = LIMITS.names) -> str:
    """Name the first of many, and count the rest."""
    rest = len(names) - most
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:most])} … and {rest} more"


def _first_clauses(text: str, room: int) -> str:
    """Return the first clause, and as many of the next as fit."""
    kept, *rest = _clauses(text) or [""]
    for clause in rest:
        if len(kept) + len(_SEPARATOR) + len(clause) > room:
            break
        kept += _SEPARATOR + clause
    return kept


def _clauses(text: str) -> list[str]:
    return [clause for clause in text.split(_SEPARATOR) if clause.strip()]


def _plain(text: str) -> str:
    """Return the text on one line, without the full stop at its end."""
    return " ".join(text.split()).rstrip(".")
