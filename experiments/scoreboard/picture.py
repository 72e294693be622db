"""The picture: recall against false alarms, and delay against them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.scoreboard.scoring import Score

OURS, OTHERS = "#d1603d", "#3f7fb5"


def score_picture(scores: Sequence[Score], title: str) -> Figure:
    """Draw each detector as a point.

    Left its recall, right its median delay with as much of the colour as it has recall; both against the false alarms
    per 10,000 healthy steps, whose scale is linear up to 1 and logarithmic beyond. A detector without a hit has no
    delay.

    Args:
        scores: Of the detectors, numbered in this order.
        title: What they were scored on.
    """
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    metrics = [score.metrics() for score in scores]
    for number, (score, m) in enumerate(zip(scores, metrics, strict=True), 1):
        false_alarms = m["false_alarms_per_10000_steps"]
        colour = OURS if score.detector.startswith("ours") else OTHERS
        _point(left, false_alarms, m["recall"], number, colour, 1.0, f"{number}  {_told(score, m)}")
        _point(right, false_alarms, m["median_delay"], number, colour, 0.15 + 0.85 * _or_zero(m["recall"]))
    left.set(ylabel="recall: share of failing runs found, with the right kind", ylim=(-0.04, 1.06))
    right.set(ylabel="median delay of what was found, steps after the onset")
    right.set_yscale("symlog", linthresh=10)
    right.set_ylim(bottom=-1)
    for axes in (left, right):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=-0.15)
        axes.set(xlabel="false alarms per 10,000 healthy steps")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes, corner, height in ((left, "better: up and left", 0.97), (right, "better: down and left", 0.03)):
        axes.text(0.97, height, corner, transform=axes.transAxes, ha="right", va="center", fontsize=8, color="#777777")
    figure.suptitle(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, handlelength=0.8)
    return figure


def _point(axes: Axes, x: float, y: float, number: int, colour: str, alpha: float, label: str | None = None) -> None:
    if math.isnan(x):
        x = 0.0  # no healthy step was seen
    axes.plot(x, y, "o", color=colour, alpha=alpha, markersize=14, label=label, clip_on=False)
    if not math.isnan(y):
        text = {"ha": "center", "va": "center", "fontsize": 7.5, "color": "white", "fontweight": "bold"}
        axes.annotate(str(number), (x, y), annotation_clip=False, **text)


def _told(score: Score, m: dict[str, float]) -> str:
    return f"{score.detector} (precision {_or_zero(m['precision']):.2f})"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
