"""The picture: recall against false alarms, and delay against them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.scoreboard.scoring import Score

# Where a number stands beside its point: in turn, since neighbours may be close.
SIDES = ((6, "left", 5), (-6, "right", 5), (6, "left", -12), (-6, "right", -12))
OURS, OTHERS = "#d1603d", "#3f7fb5"


def score_picture(scores: Sequence[Score], title: str) -> Figure:
    """Draw each detector as a numbered point; those that fall together share one.

    Left its recall, right its median delay, both against the false alarms per 10,000 healthy steps, whose scale is
    linear up to 1 and logarithmic beyond. A detector without a hit has no delay.

    Args:
        scores: Of the detectors, numbered in this order.
        title: What they were scored on.
    """
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    metrics = [score.metrics() for score in scores]
    colours = [OURS if score.detector.startswith("ours") else OTHERS for score in scores]
    false_alarms = [m["false_alarms_per_10000_steps"] for m in metrics]
    for axes, name in ((left, "recall"), (right, "median_delay")):
        _points(axes, false_alarms, [m[name] for m in metrics], colours)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.3, 3 * max(3.0, *(x for x in false_alarms if not math.isnan(x)), 0.0))
        axes.set_xlabel("false alarms per 10,000 healthy steps", fontsize=9)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylim=(-0.04, 1.06))
    left.set_ylabel("recall: failing runs found, with the right kind", fontsize=9)
    right.set_yscale("symlog", linthresh=10)
    right.yaxis.set_major_formatter("{x:g}")
    right.set_ylim(-2, 3 * max(10.0, *(m["median_delay"] for m in metrics if not math.isnan(m["median_delay"])), 0.0))
    right.set_ylabel("median delay of what was found, in steps after the onset", fontsize=9)
    left.set_title("better: up and left", loc="right", fontsize=8, color="#777777")
    right.set_title("better: down and left", loc="right", fontsize=8, color="#777777")
    figure.suptitle(title, fontsize=11)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", markersize=6) for colour in colours]
    labels = [f"{i}  {score.detector}, {_told(m)}" for i, (score, m) in enumerate(zip(scores, metrics, strict=True), 1)]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8, handletextpad=0.2)
    return figure


def _points(axes: Axes, x: Sequence[float], y: Sequence[float], colours: Sequence[str]) -> None:
    together: defaultdict[tuple[float, float], list[int]] = defaultdict(list)
    for i, (right, up) in enumerate(zip(x, y, strict=True)):
        if not math.isnan(right) and not math.isnan(up):
            together[float(f"{right:.2g}"), float(f"{up:.2g}")].append(i)
    for place, members in together.items():
        # Ours is the first, and seen where it falls together with others.
        axes.plot(*place, "o", color=colours[members[0]], markersize=9, clip_on=False, zorder=3)
        numbers = ", ".join(str(i + 1) for i in members)
        side, align, height = SIDES[members[0] % len(SIDES)]
        where = {"xytext": (side, height), "textcoords": "offset points", "ha": align, "annotation_clip": False}
        axes.annotate(numbers, place, fontsize=9, **where)


def _told(m: dict[str, float]) -> str:
    return "no alarm" if math.isnan(m["precision"]) else f"precision {m['precision']:.2f}"
