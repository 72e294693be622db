"""A picture of runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grad_callbacks.events import QUIET
from grad_callbacks.tracking.comparison.labels import run_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLOURS = {
    "healthy": "#4c9f70",
    "repaired": "#3f7fb5",
    "partly repaired": "#d9a441",
    "unrepaired": "#d1603d",
    "": "#9a9a9a",
}  # of outcomes
OTHER = "#6b7280"  # colour of outcomes that this version does not know


def comparison_picture(table: pd.DataFrame) -> Figure:
    """Draw the metric of every run as a bar, scenario by scenario, coloured by outcome.

    Args:
        table: From :func:`grad_callbacks.tracking.comparison.compare.compare`, at least one row.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    metric = table.attrs.get("metric", "val/accuracy")
    finite = table["accuracy"][np.isfinite(table["accuracy"])]
    highest = 1.0 if finite.empty else max(1.0, 1.05 * float(finite.max()))
    several_seeds = len(set(table["seed"])) > 1
    scenarios = list(dict.fromkeys(table["scenario"]))
    heights = [len(table[table["scenario"] == scenario]) for scenario in scenarios]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(table) + 0.35 * len(scenarios)), layout="constrained")
    axes = figure.subplots(len(scenarios), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, scenario in zip(axes, scenarios, strict=True):
        rows = table[table["scenario"] == scenario]
        labels = [run_label(row) + (f" #{row['seed']}" if several_seeds else "") for _, row in rows.iterrows()]
        y = np.arange(len(rows))
        ax.barh(
            y,
            rows["accuracy"].fillna(0),
            color=[COLOURS.get(outcome, OTHER) for outcome in rows["outcome"]],
            height=0.7,
        )
        for i, (_, row) in enumerate(rows.iterrows()):
            inside = row["accuracy"] > 0.6 * highest
            align, colour = ("right", "white") if inside else ("left", "black")
            ax.text(row["accuracy"], i, f" {_bar_text(row)} ", va="center", ha=align, color=colour, fontsize=8)
        ax.set_yticks(y, labels, fontsize=8)
        ax.invert_yaxis()
        ax.set_title(scenario, loc="left", fontsize=9, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlim=(0, highest), xlabel=f"last {metric}")
    found = set(table["outcome"])
    used = [outcome for outcome in COLOURS if outcome in found] + sorted(found - COLOURS.keys())
    names = [outcome or "not watched" for outcome in used]
    handles = [Patch(color=COLOURS.get(outcome, OTHER)) for outcome in used]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _bar_text(row: Any) -> str:
    accuracy = f"{row['accuracy']:.3f}"
    if row["verdict"] in ("", *QUIET):
        return accuracy
    done = "nothing done" if row["remedies"] == "none" else row["remedies"]
    return f"{accuracy}  {row['verdict']} at step {row['first_alert_step']}: {done}"
