"""The picture: nats lost per setting and treatment, and the losses of one surge of the rate."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.scoreboard.language_model.scoring import CHANCE, REPAIRED, Row
from experiments.scoreboard.language_model.treatments import BOTH, CLIP, NONE, OURS

COLOURS = {NONE: "#222222", CLIP: "#3f7fb5", OURS: "#d1603d", BOTH: "#8a3fb5"}
SPREAD = 0.6  # of a line, over which the treatments' points are spread
TICKS = (-0.1, 0, 0.1, 0.2, 0.5, 1, 2)
OTHERS = ("#7a9e3f", "#b59b3f", "#8f8f8f")


def picture(rows: Sequence[Row], title: str) -> Figure:
    """Draw a point for each failing setting and treatment, the most costly on top; beside it one surge's losses.

    Args:
        rows: Of the settings.
        title: What was run.
    """
    failing = sorted((row for row in rows if row.label == "failing"), key=lambda row: row.cost(NONE))
    figure = Figure(figsize=(13, 2.2 + 0.24 * max(12, len(failing))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1.0])
    names = list(rows[0].results) if rows else []
    rest = iter(OTHERS)
    colours = {name: COLOURS.get(name) or next(rest) for name in names}
    for number, name in enumerate(names):
        places = [place + SPREAD * (len(names) / 2 - number) / len(names) for place in range(len(failing))]
        left.plot([row.cost(name) for row in failing], places, "o", color=colours[name], label=name, markersize=4)
    left.axvline(REPAIRED, color="#999999", linewidth=0.8, linestyle=":")
    left.set(yticks=range(len(failing)), yticklabels=[row.setting.name for row in failing])
    left.set_xscale("symlog", linthresh=0.1)
    left.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    left.minorticks_off()
    left.set_xlabel(f"nats above the unhurt twin; dotted: {REPAIRED}, repaired", fontsize=9)
    left.grid(axis="x", alpha=0.25)
    left.legend(fontsize=8)
    surges = [row for row in failing if "surge" in row.setting.name]
    if surges:
        _losses(right, surges[-1], colours)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure


def _losses(axes: Axes, row: Row, colours: dict[str, str]) -> None:
    curves = {name: results[0].evaluations for name, results in row.results.items()}
    for name, curve in curves.items():
        axes.plot(
            [step for step, _ in curve], [min(loss, CHANCE) for _, loss in curve], color=colours[name], label=name
        )
    twin = row.twins[0].evaluations
    axes.plot([step for step, _ in twin], [loss for _, loss in twin], "--", color="#999999", label="unhurt twin")
    axes.axvline(row.setting.onset, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_title(row.setting.name, fontsize=9)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("validation loss in nats a byte", fontsize=9)
    axes.legend(fontsize=8)
