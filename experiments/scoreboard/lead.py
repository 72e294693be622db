"""Lead and delay of each kind: how long before the loss was lost an alert came, and how long after the onset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.scoreboard.scoring import Score
from experiments.scoreboard.table import number
from grad_callbacks.events import KINDS

Measure = Literal["delay", "lead"]

OURS, OTHERS = "#d1603d", "#3f7fb5"
LINEAR = 10  # steps up to which the scale is linear; beyond it is logarithmic


def lead_table(scores: Sequence[Score]) -> Table:
    """Return one row per detector, with three columns for each kind.

    They are the number of hits in whose runs there was a loss to lose, their median lead, and the median delay of all
    hits of the kind. A lead is negative if the alert came later than the loss was lost.
    """
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("detector")
    for kind in KINDS:
        for head in (f"{kind[:4]}: n", "lead", "delay"):
            table.add_column(head, justify="right", no_wrap=True)
    for score in scores:
        cells = []
        for kind in KINDS:
            leads = measured(score, kind, "lead")
            cells += [str(len(leads)), _middle(leads), _middle(measured(score, kind, "delay"))]
        table.add_row(f"[bold]{score.detector}[/bold]" if score.detector.startswith("ours") else score.detector, *cells)
    return table


def measured(score: Score, kind: str, measure: Measure) -> list[float]:
    """Return lead or delay of each hit of a kind; a hit in a run whose loss was never lost has no lead."""
    found = [getattr(hit, measure) for hit in score.named("hit") if hit.kind == kind]
    return [steps for steps in found if not math.isnan(steps)]


def lead_picture(scores: Sequence[Score], title: str) -> Figure:
    """Draw the delay of each detector's hits above, their lead below, one column for each kind.

    A dot is a run, a bar the median. The scale is linear up to 10 steps and logarithmic beyond.

    Args:
        scores: Of the detectors, from top to bottom.
        title: What they were scored on.
    """
    figure = Figure(figsize=(11, 1.6 + 0.4 * max(3, len(scores))), layout="constrained")
    grid = figure.subplots(2, len(KINDS), sharey=True, sharex="row", squeeze=False)
    said: dict[Measure, str] = {
        "delay": "delay: steps from the onset to the alert",
        "lead": "lead: steps from the alert to where the loss was lost",
    }
    for row, (measure, label) in zip(grid, said.items(), strict=True):
        for axes, kind in zip(row, KINDS, strict=True):
            _strips(axes, [measured(score, kind, measure) for score in scores], [score.detector for score in scores])
            axes.set_title(kind, fontsize=9)
        row[1].set_xlabel(label, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _strips(axes: Axes, rows: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    for place, (steps, name) in enumerate(zip(rows, names, strict=True)):
        colour = OURS if name.startswith("ours") else OTHERS
        axes.plot(steps, [place] * len(steps), "o", color=colour, markersize=3, alpha=0.3, markeredgewidth=0)
        if steps:
            axes.plot([median(steps)] * 2, [place - 0.35, place + 0.35], color=colour, linewidth=2)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("symlog", linthresh=LINEAR)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(0, color="#777777", linewidth=0.5)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)


def _middle(steps: Sequence[float]) -> str:
    return number(median(steps) if steps else math.nan, ".0f")
