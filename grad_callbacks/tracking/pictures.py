"""Pictures of a run, and of runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from grad_callbacks.alerts import Alert
from grad_callbacks.interventions import Intervention
from grad_callbacks.tracking.compare import run_label

MAX_COLUMNS = 600  # steps are joined into this many columns at most
MAX_LABELS = 40
COLOURS = {"healthy": "#4c9f70", "repaired": "#3f7fb5", "unrepaired": "#d1603d", "": "#9a9a9a"}


def heatmap(history: pd.DataFrame, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> Figure:
    """Draw log10 of each layer's gradient norm, layer by step, the first layer on top.

    Args:
        history: One row per step and layer, at least one.
        alerts: Marked by a dashed line at their step.
        interventions: Marked by a solid line at their step.
    """
    order = history.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
    with np.errstate(divide="ignore"):
        log_norm = np.log10(history["norm"].to_numpy())
    log_norm[~np.isfinite(log_norm)] = np.nan  # no gradient, or a non-finite one: left blank
    steps = history["step"].to_numpy()
    first, last = int(steps.min()), int(steps.max())
    width = max(1, -(-(last - first + 1) // MAX_COLUMNS))
    table = (
        pd.DataFrame({"layer": history["layer"], "column": (steps - first) // width, "log_norm": log_norm})
        .pivot_table(index="layer", columns="column", values="log_norm", aggfunc="mean", dropna=False)
        .reindex(order)
    )
    figure = Figure(figsize=(10, 1.6 + 0.28 * min(len(order), MAX_LABELS)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("#dddddd")
    columns = table.columns.to_numpy(dtype=np.int64)
    x = first + np.append(columns, columns[-1] + 1) * width - 0.5
    mesh = axes.pcolormesh(x, np.arange(len(order) + 1) - 0.5, table.to_numpy(), cmap="viridis", shading="flat")
    figure.colorbar(mesh, ax=axes, label="log10 of the gradient norm")
    for marks, style, name in ((alerts, "--", "alert"), (interventions, "-", "intervention")):
        for i, step in enumerate(sorted({mark.step for mark in marks})):
            axes.axvline(step, color="#ff5a36", linestyle=style, linewidth=1.3, label=name if i == 0 else None)
    if alerts or interventions:
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, frameon=False, fontsize=8)
    shown = np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_LABELS)).astype(int))
    axes.set_yticks(shown, [order[i] for i in shown], fontsize=8)
    axes.set(ylim=(len(order) - 0.5, -0.5), xlim=(x[0], x[-1]), xlabel="step")
    return figure


def comparison(table: pd.DataFrame) -> Figure:
    """Draw the final accuracy of every run as a bar, scenario by scenario, coloured by outcome.

    Args:
        table: From :func:`grad_callbacks.tracking.compare`, at least one row.
    """
    several_seeds = len(set(table["seed"])) > 1
    scenarios = list(dict.fromkeys(table["scenario"]))
    heights = [len(table[table["scenario"] == scenario]) for scenario in scenarios]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(table) + 0.35 * len(scenarios)), layout="constrained")
    axes = figure.subplots(len(scenarios), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, scenario in zip(axes, scenarios, strict=True):
        rows = table[table["scenario"] == scenario]
        labels = [run_label(row) + (f" #{row['seed']}" if several_seeds else "") for _, row in rows.iterrows()]
        y = np.arange(len(rows))
        ax.barh(y, rows["accuracy"].fillna(0), color=[COLOURS[outcome] for outcome in rows["outcome"]], height=0.7)
        for i, (_, row) in enumerate(rows.iterrows()):
            inside = row["accuracy"] > 0.6
            align, colour = ("right", "white") if inside else ("left", "black")
            ax.text(row["accuracy"], i, f" {_told(row)} ", va="center", ha=align, color=colour, fontsize=8)
        ax.set_yticks(y, labels, fontsize=8)
        ax.invert_yaxis()
        ax.set_title(scenario, loc="left", fontsize=9, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlim=(0, 1), xlabel="final validation accuracy")
    used = [outcome for outcome in COLOURS if outcome in set(table["outcome"])]
    names = [outcome or "not watched" for outcome in used]
    handles = [Patch(color=COLOURS[outcome]) for outcome in used]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _told(row: Any) -> str:
    accuracy = f"{row['accuracy']:.3f}"
    if row["verdict"] in ("", "healthy"):
        return accuracy
    done = "nothing done" if row["remedies"] == "none" else row["remedies"]
    return f"{accuracy}  {row['verdict']} at step {row['first_alert_step']}: {done}"
