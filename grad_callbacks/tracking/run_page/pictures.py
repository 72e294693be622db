"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.tracking.kinds import colour_of, colours_of
from grad_callbacks.tracking.run_page.grid import grid_of, layers_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 40  # names of layers at an axis
MAX_NAME = 34  # characters of a layer's name
INTERVENTION = "#2e6fb7"
NONFINITE, ZERO, NOTHING = "#d81b60", "#20232a", "#dcdcdc"
SHARES = ("#fafafa", "#fcc58c", "#f1605d", "#9e2f7f", "#440f76", "#000004")  # magma, but from white, as on the page


def heatmap(history: pd.DataFrame, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> Figure:
    """Draw log10 of each layer's gradient norm, layer by step, the first layer on top.

    Args:
        history: One row per step and layer, at least one.
        alerts: Marked by a dashed line at their step, in the colour of their kind.
        interventions: Marked by a solid line at their step.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

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
    from matplotlib.figure import Figure

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
    """Return step, colour and name of each profile: at the first reading, the first alert and the last reading."""
    steps = np.unique(history["step"].to_numpy())
    first, last = int(steps[0]), int(steps[-1])
    chosen = [(first, "#9a9a9a", "first reading")]
    if alerts and first < alerts[0].step < last and alerts[0].step in steps:
        chosen.append((alerts[0].step, colour_of(alerts[0].kind), "first alert"))
    return [*chosen, (last, INTERVENTION, "last reading")] if last > first else chosen


def steps_picture(table: pd.DataFrame, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> Figure:
    """Draw the global norm before and after clipping, the effective learning rate, and the training loss over steps.

    Args:
        table: One row per step, as ``StepSeries.to_frame`` returns it, at least one row.
        alerts: Marked by a dashed line at their step, in the colour of their kind.
        interventions: Marked by a solid line at their step.
    """
    from matplotlib.figure import Figure

    rows = table[table["optimizer"] == table["optimizer"].iloc[0]]
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
    """Draw the sizes of the gradient's entries: log10 of the size across, one layer per row, dark is many."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    rows = len(histogram.layers)
    figure = Figure(figsize=(8, 1.3 + 0.26 * min(rows, MAX_LABELS)))
    figure.subplots_adjust(
        left=0.3, right=0.97, bottom=0.5 / figure.get_figheight(), top=1 - 0.35 / figure.get_figheight()
    )
    axes = figure.add_subplot()
    edge = 1 / HISTOGRAM.per_decade
    extent = (HISTOGRAM.lowest - edge, HISTOGRAM.highest + edge, rows - 0.5, -0.5)
    colours = LinearSegmentedColormap.from_list("shares", SHARES)
    axes.imshow(histogram.shares, aspect="auto", cmap=colours, vmin=0, vmax=0.2, extent=extent)
    axes.set_title(f"Size of the gradient's entries at step {histogram.step}", loc="left", fontsize=10)
    axes.set_xlabel(
        "log10 of an entry's size (left edge: smaller or zero; right edge: larger or not finite)", fontsize=8
    )
    _name_layers(axes, histogram.layers)
    return figure


def _line(axes: Axes, steps: np.ndarray, values: pd.Series, colour: str, label: str = "", width: float = 1.4) -> None:
    numbers = values.to_numpy(dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    positive = finite[finite > 0]
    shown = np.where(np.isfinite(numbers), numbers, np.nan)
    if len(positive) and (finite >= 0).all() and positive.max() > 20 * positive.min():
        axes.set_yscale("log")
        shown = np.fmax(
            shown, np.where(np.isnan(shown), np.nan, positive.min())
        )  # the zero of a skipped step is drawn at the bottom
    axes.plot(steps, shown, color=colour, linewidth=width, label=label or None)


def _mark(axes: Axes, alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> list[object]:
    """Draw a line at each step, and return one of each kind for the legend."""
    marked: list[object] = []
    for kind, colour in colours_of(alert.kind for alert in alerts).items():
        steps = _steps(alert for alert in alerts if alert.kind == kind)
        marked += _lines(axes, steps, colour, "--", f"{kind} alert")[:1]
    return marked + _lines(axes, _steps(interventions), INTERVENTION, "-", "intervention")[:1]


def _lines(axes: Axes, steps: Sequence[int], colour: str, style: str, name: str) -> list[object]:
    above = 4 if style == "--" else 3  # a dashed alert stays visible on the line of its intervention
    return [
        axes.axvline(step, color=colour, linestyle=style, linewidth=1, alpha=0.8, label=name, zorder=above)
        for step in steps
    ]


def _steps(marks: Iterable[Alert | Intervention]) -> list[int]:
    return sorted({mark.step for mark in marks})


def _name_layers(axes: Axes, layers: Sequence[str]) -> None:
    shown = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MAX_LABELS)).astype(int))
    axes.set_yticks(shown, [_name(layers[i]) for i in shown], fontsize=8)
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _name(layer: str) -> str:
    return layer if len(layer) <= MAX_NAME else "…" + layer[-MAX_NAME + 1 :]
