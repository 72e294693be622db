"""The scoreboard in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.corpus import Labelled, Scenario
from experiments.scoreboard.scoring import Result, Score, Verdict

MISTAKES: tuple[Result, ...] = ("missed", "wrong kind", "false alarm")


def score_table(scores: Sequence[Score]) -> Table:
    """Return one row per detector.

    Columns: precision; recall over all failing runs and of each kind; false alarms per 10,000 healthy steps; healthy
    runs with any alarm; share of right causes; median delay after the onset, and hits before it; median lead before
    the loss is lost.
    """
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("detector")
    # A terminal of 80 columns is enough.
    heads = ["prec", "recall", "van", "expl", "nonf", "f/10k", "alarmed", "cause", "delay", "early", "lead"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for one in scores:
        m = one.metrics()
        shares = ("precision", "recall", "recall_vanishing", "recall_exploding", "recall_nonfinite")
        table.add_row(
            f"[bold]{one.detector}[/bold]" if one.detector.startswith("ours") else one.detector,
            *(number(m[name], ".2f") for name in shares),
            number(m["false_alarms_per_10000_steps"], ".1f"),
            f"{m['healthy_runs_alarmed']:.0f}/{m['healthy_runs']:.0f}",
            number(m["cause_accuracy"], ".2f"),
            number(m["median_delay"], ".0f"),
            number(m["early_hits"], ".0f"),
            number(m["median_lead"], ".0f"),
        )
    return table


def tell_runs(console: Console, labelled: Labelled, scenarios: Mapping[str, Scenario]) -> None:
    """Print how many runs there are of each label, and which scenarios turned out otherwise than expected."""
    chosen = [label for (name, _), label in labelled.labels.items() if name in scenarios]
    counts = ", ".join(f"{chosen.count(label)} {label}" for label in ("failing", "healthy", "unsettled"))
    console.print(f"{len(scenarios)} scenarios, {len(chosen)} runs: {counts} (left out).")
    for name in labelled.contradictions:
        if name in scenarios:
            expected = ("healthy", "failing") if scenarios[name].kinds else ("failing", "healthy")
            console.print(f"  [yellow]{name}[/yellow] is {expected[0]}, and was expected to be {expected[1]}")


def tell_mistakes(console: Console, one: Score) -> None:
    """Print misses, wrong kinds, false alarms and wrong causes of a detector, by name."""
    for result in MISTAKES:
        _list(console, result, (_told(verdict) for verdict in one.named(result)))
    wrong = [verdict for verdict in one.named("hit") if verdict.cause_is_right is False]
    _list(console, "wrong cause", (_told(verdict) for verdict in wrong))


def _told(verdict: Verdict) -> str:
    told = f"{verdict.scenario}/{verdict.seed}"
    if verdict.kind:
        told += f" ({verdict.kind})"
    if verdict.alarm is None:
        return told
    return f"{told}: {'/'.join(verdict.alarm.kinds)} at step {verdict.alarm.step}, {verdict.alarm.cause or 'no cause'}"


def _list(console: Console, head: str, lines: Iterable[str]) -> None:
    told = list(lines)
    if told:
        console.print(f"[bold]{head}[/bold] ({len(told)})")
        for line in told:
            console.print(f"  {line}", highlight=False, soft_wrap=True)


def number(value: float, how: str) -> str:
    """Format a number: a dash for NaN, and no sign before a zero."""
    told = format(value, how)
    return "–" if math.isnan(value) else told.removeprefix("-") if float(told) == 0 else told
