"""The picture: the share of failing runs that each treatment repairs, by kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.scoreboard.picture import OTHERS, OURS
from experiments.scoreboard.repair import treatments
from experiments.scoreboard.repair.scoring import Score
from grad_callbacks.events import KINDS


def repair_picture(scores: Sequence[Score], title: str) -> Figure:
    """Draw a bar for each treatment and kind, the best treatment on top; in the first panel over all kinds.

    There a line reaches from the worst to the best seed, and a cross is the share of healthy runs that were harmed, if
    any was.

    Args:
        scores: Of the treatments.
        title: What they were scored on.
    """
    told = {score.treatment: score.metrics() for score in scores}
    names = sorted(told, key=lambda name: (_or_zero(told[name]["repaired"]), name == treatments.OURS))
    figure = Figure(figsize=(11, 1.6 + 0.27 * len(names)), layout="constrained")
    panels = figure.subplots(1, 1 + len(KINDS), sharey=True, width_ratios=[1.6] + [1.0] * len(KINDS))
    counts = {kind: len(scores[0].failing(kind)) for kind in KINDS} if scores else dict.fromkeys(KINDS, 0)
    panels[0].set_title(f"all failing runs ({sum(counts.values())})", fontsize=9)
    _bars(panels[0], names, [told[name]["repaired"] for name in names])
    for axes, kind in zip(panels[1:], KINDS, strict=True):
        axes.set_title(f"{kind} ({counts[kind]})", fontsize=9)
        _bars(axes, names, [told[name][f"repaired_{kind}"] for name in names])
    for row, name in enumerate(names):
        m = told[name]
        if not math.isnan(m["repaired_low"]):
            panels[0].plot([m["repaired_low"], m["repaired_high"]], [row, row], color="#222222", linewidth=1)
        if m["harmed_share"] > 0:
            panels[0].plot(m["harmed_share"], row, "x", color="#222222", markersize=5)
    panels[0].set_xlabel("share repaired; line: over seeds; cross: healthy runs harmed", fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _bars(axes: Axes, names: Sequence[str], shares: Sequence[float]) -> None:
    colours = [OURS if name == treatments.OURS else OTHERS for name in names]
    axes.barh(range(len(names)), [_or_zero(share) for share in shares], color=colours, height=0.7)
    for row, share in enumerate(shares):
        if not math.isnan(share):
            axes.annotate(f"{share:.2f}", (1.02, row), fontsize=8, va="center", annotation_clip=False)
    axes.set(xlim=(0, 1), yticks=range(len(names)), yticklabels=names)
    axes.tick_params(labelsize=8)
    axes.set_xticks([0, 0.5, 1])
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _or_zero(share: float) -> float:
    return 0.0 if math.isnan(share) else share
