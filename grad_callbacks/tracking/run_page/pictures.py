"""Pictures of a run, and of runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.tracking.comparison.compare import run_label
from grad_callbacks.tracking.run_page.grid import MAX_COLUMNS, grid_of, layers_of

__all__ = [
    "MAX_COLUMNS",
    "comparison",
    "course_picture",
    "heatmap",
    "histogram_picture",
    "profile_picture",
    "profile_steps",
]

MAX_LABELS = 40
MAX_NAME = 34  # characters of a layer's name
ALERT, INTERVENTION = "#e4572e", "#2e6fb7"
NONFINITE, ZERO, NOTHING = "#d81b60", "#20232a", "#dcdcdc"
SHARES = LinearSegmentedColormap.from_list(  # magma, but from white, as on the page
    "shares", ["#fafafa", "#fcc58c", "#f1605d", "#9e2f7f", "#440f76", "#000004"]
)
COLOURS = {"healthy": "#4c9f70", "repaired": "#3f7fb5", "unrepaired": "#d1603d", "": "#9a9a9a"}


def heatmap(history: pd.DataFrame, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> Figure:
    """Draw log10 of each layer's gradient norm, layer by step, the first layer on top.

    Args:
        history: One row per step and layer, at least one.
        alerts: Marked by a dashed line at their step.
        interventions: Marked by a solid line at their step.
    """
    grid = grid_of(history, "norm")
    rows = len(grid.layers)
    figure = Figure(figsize=(10, 1.8 + 0.28 * min(rows, MAX_LABELS)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(NOTHING)
    y = np.arange(rows + 1) - 0.5
    mesh = axes.pcolormesh(grid.edges, y, grid.log10, cmap="viridis", shading="flat")
    figure.colorbar(mesh, ax=axes, label="log10 of the gradient norm")
    special = []
    for cells, colour, name in ((grid.zero, ZERO, "zero"), (grid.nonfinite, NONFINITE, "NaN or infinite")):
        if cells.any():
            shown = np.ma.masked_where(~cells, np.ones(cells.shape))
            axes.pcolormesh(grid.edges, y, shown, cmap=ListedColormap([colour]), shading="flat")
            special.append(Patch(color=colour, label=name))
    lines = _mark(axes, alerts, interventions)
    if lines or special:
        figure.legend(handles=[*lines, *special], loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    axes.set_title("Gradient norm by layer and step", loc="left", fontsize=10, fontweight="bold")
    _name_layers(axes, grid.layers)
    axes.set(xlim=(grid.edges[0], grid.edges[-1]), xlabel="step")
    return figure


def profile_picture(history: pd.DataFrame, alerts: Sequence[Alert]) -> Figure:
    """Draw each layer's root mean square gradient over depth: at the first, the alert's and the last reading.

    Args:
        history: One row per step and layer, at least one.
        alerts: The first one's step is shown, if it is neither the first nor the last.
    """
    layers = layers_of(history)
    figure = Figure(figsize=(8, 1.4 + 0.28 * min(len(layers), MAX_LABELS)), layout="constrained")
    axes = figure.add_subplot()
    for step, colour, name in profile_steps(history, alerts):
        rms = history[history["step"] == step].drop_duplicates("layer").set_index("layer")["rms"].reindex(layers)
        shown = rms.where(np.isfinite(rms) & (rms > 0)).to_numpy()
        axes.plot(shown, np.arange(len(layers)), "o-", color=colour, label=f"{name} (step {step})", markersize=4)
    axes.set_xscale("log")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Gradient over depth, before and after", loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("root mean square of the layer's gradient entries")
    _name_layers(axes, layers)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def profile_steps(history: pd.DataFrame, alerts: Sequence[Alert]) -> list[tuple[int, str, str]]:
    """Return step, colour and name of the profiles worth a look."""
    steps = np.unique(history["step"].to_numpy())
    first, last = int(steps[0]), int(steps[-1])
    chosen = [(first, "#9a9a9a", "first reading")]
    if alerts and first < alerts[0].step < last and alerts[0].step in steps:
        chosen.append((alerts[0].step, ALERT, "first alert"))
    return [*chosen, (last, INTERVENTION, "last reading")] if last > first else chosen


def course_picture(course: pd.DataFrame, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> Figure:
    """Draw the global norm before and after clipping, the effective learning rate, and the training loss over steps.

    Args:
        course: As :meth:`grad_callbacks.reporting.step_series.StepSeries.to_frame` returns it, at least one row.
        alerts: Marked by a dashed line at their step.
        interventions: Marked by a solid line at their step.
    """
    rows = course[course["optimizer"] == course["optimizer"].iloc[0]]
    has_loss = bool(np.isfinite(rows["loss"]).any())
    figure = Figure(figsize=(10, 6.4 if has_loss else 4.6), layout="constrained")
    axes = figure.subplots(3 if has_loss else 2, sharex=True, height_ratios=[2, 1, 1.3] if has_loss else [2, 1])
    steps = rows["step"].to_numpy()
    _line(axes[0], steps, rows["norm"], "#9a9a9a", "before clipping", width=2.2)
    _line(axes[0], steps, rows["norm_clipped"], "#1b7f5c", "of the step taken", width=1.1)
    axes[0].legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    _line(axes[1], steps, rows["lr_effective"], "#7a4fa3")
    titles = ["Gradient norm, before and after clipping", "Learning rate in effect"]
    if has_loss:
        _line(axes[2], steps, rows["loss"], "#444444")
        titles.append("Training loss")
    for ax, title in zip(axes, titles, strict=True):
        lines = _mark(ax, alerts, interventions)
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
    axes[-1].set_xlabel("step")
    if lines:
        figure.legend(handles=lines, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return figure


def histogram_picture(histogram: Histogram) -> Figure:
    """Draw how large the gradient's entries were: log10 of their size across, one layer a row, dark is many."""
    rows = len(histogram.layers)
    figure = Figure(figsize=(8, 1.3 + 0.26 * min(rows, MAX_LABELS)))
    figure.subplots_adjust(
        left=0.3, right=0.97, bottom=0.5 / figure.get_figheight(), top=1 - 0.35 / figure.get_figheight()
    )
    axes = figure.add_subplot()
    edge = 1 / HISTOGRAM.per_decade
    extent = (HISTOGRAM.lowest - edge, HISTOGRAM.highest + edge, rows - 0.5, -0.5)
    axes.imshow(histogram.shares, aspect="auto", cmap=SHARES, vmin=0, vmax=0.2, extent=extent)
    axes.set_title(f"Size of the gradient's entries at step {histogram.step}", loc="left", fontsize=10)
    axes.set_xlabel(
        "log10 of an entry's size (left edge: smaller or zero; right edge: larger or not finite)", fontsize=8
    )
    _name_layers(axes, histogram.layers)
    return figure


def comparison(table: pd.DataFrame) -> Figure:
    """Draw what every run came to as a bar, scenario by scenario, coloured by outcome.

    Args:
        table: From :func:`grad_callbacks.tracking.comparison.compare`, at least one row.
    """
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
        ax.barh(y, rows["accuracy"].fillna(0), color=[COLOURS[outcome] for outcome in rows["outcome"]], height=0.7)
        for i, (_, row) in enumerate(rows.iterrows()):
            inside = row["accuracy"] > 0.6 * highest
            align, colour = ("right", "white") if inside else ("left", "black")
            ax.text(row["accuracy"], i, f" {_told(row)} ", va="center", ha=align, color=colour, fontsize=8)
        ax.set_yticks(y, labels, fontsize=8)
        ax.invert_yaxis()
        ax.set_title(scenario, loc="left", fontsize=9, fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlim=(0, highest), xlabel=f"last {metric}")
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


def _line(axes: Axes, steps: np.ndarray, values: pd.Series, colour: str, label: str = "", width: float = 1.4) -> None:
    numbers = values.to_numpy(dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    positive = finite[finite > 0]
    shown = np.where(np.isfinite(numbers), numbers, np.nan)
    if len(positive) and (finite >= 0).all() and positive.max() > 20 * positive.min():
        axes.set_yscale("log")
        shown = np.fmax(
            shown, np.where(np.isnan(shown), np.nan, positive.min())
        )  # a skipped step's zero: at the bottom
    axes.plot(steps, shown, color=colour, linewidth=width, label=label or None)


def _mark(axes: Axes, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> list[object]:
    marked: list[object] = []
    for marks, colour, style, name in (
        (_steps(alerts), ALERT, "--", "alert"),
        (_steps(interventions), INTERVENTION, "-", "intervention"),
    ):
        above = 4 if style == "--" else 3  # a dashed alert stays visible on the line of its intervention
        lines = [
            axes.axvline(step, color=colour, linestyle=style, linewidth=1, alpha=0.8, label=name, zorder=above)
            for step in marks
        ]
        marked += lines[:1]
    return marked


def _steps(marks: Iterable[Alert | Intervention]) -> list[int]:
    return sorted({mark.step for mark in marks})


def _name_layers(axes: Axes, layers: Sequence[str]) -> None:
    shown = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MAX_LABELS)).astype(int))
    axes.set_yticks(shown, [_name(layers[i]) for i in shown], fontsize=8)
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _name(layer: str) -> str:
    return layer if len(layer) <= MAX_NAME else "…" + layer[-MAX_NAME + 1 :]
