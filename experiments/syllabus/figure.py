"""docs/syllabus.png: the error over the depth of the nets, and over their number of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.syllabus.claims import DEEP, DEPTHS, Setting, deep_setting
from experiments.syllabus.judging import Many, Results
from experiments.syllabus.problems import PROBLEMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR, CEILING = 1e-16, 1e16  # of the axes: the chain rule's 1e-50 and 1e50 would leave no room for the others
INK = "#52514e"
COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#8a63d2", "#c2407a")
# Which lines each of the first two panels shows: problems, then the same nets with a cure, dashed.
PANELS: dict[str, tuple[Setting, ...]] = {
    "vanishing": (
        *(Setting(name) for name in ("sigmoid", "tanh", "relu_default", "chain_tenth", "recurrent_forgets")),
        *(Setting("sigmoid", ("layer_norm",)), Setting("sigmoid", ("relu",)), Setting("relu_default", ("init_he",))),
    ),
    "exploding": (
        *(Setting(name) for name in ("large_weights", "chain_ten", "conv_large", "residual_unscaled")),
        *(Setting("large_weights", ("init_he",)), Setting("residual_unscaled", ("scaled",))),
    ),
}


def picture(results: Results) -> Figure:
    """Draw three panels: profiles of vanishing nets, of exploding ones, and the error's ratio over the depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 3)
    for axes, (kind, settings) in zip(panels, PANELS.items(), strict=False):
        _profiles(axes, [setting for setting in settings if setting in results], results)
        axes.set_title(f"{kind.capitalize()}: the error by depth", fontsize=10)
    _depths(panels[2], results)
    for axes in panels:
        axes.set_yscale("log")
        axes.grid(color="#e8e6e1", linewidth=0.7)
        axes.tick_params(colors=INK, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    return figure


def _profiles(axes: Axes, settings: Sequence[Setting], results: Results) -> None:
    """Draw the first seed's errors, each relative to the last layer's, from the input (0) to the loss (1)."""
    colours: dict[str, str] = {}
    for setting in settings:
        errors = results[setting].outcomes[0].measured["errors"]
        places = [place / (len(errors) - 1) for place in range(len(errors))]
        colour = colours.setdefault(setting.problem, COLOURS[len(colours)])
        style = ("--", ":", "-.")[sum(s.problem == setting.problem for s in settings[: settings.index(setting)]) - 1]
        axes.plot(
            places,
            [error / errors[-1] for error in errors],
            style if setting.cures else "-",
            color=colour,
            linewidth=1.6,
            label=_label(setting.name),
        )
    axes.set_xlabel("place in the net: input 0, last layer or step 1", fontsize=8, color=INK)
    axes.set_ylabel("error relative to the last layer's", fontsize=8, color=INK)
    is_shrinking = any(PROBLEMS[setting.problem].kind == "vanishing" for setting in settings)
    axes.set_ylim(*((FLOOR, 1e3) if is_shrinking else (1e-3, CEILING)))


def _depths(axes: Axes, results: Results) -> None:
    """Draw the first layer's error over the last's against the number of layers, with the theory's lines."""
    for net, colour in zip(DEEP, COLOURS, strict=False):
        found = [(depth, results[one]) for depth in DEPTHS if (one := deep_setting(net, depth)) in results]
        if not found:
            continue
        name = _label(net)
        depths = [depth for depth, _ in found]
        axes.plot(depths, [_ratio(many) for _, many in found], "o", color=colour, label=f"{name}, measured")
        theory = [many.middle("theory") ** (depth - 1) for depth, many in found]
        axes.plot(depths, theory, "-", color=colour, linewidth=1, label=f"{name}, theory")
    axes.set_ylim(1e-40, 1e4)
    axes.set_xlabel("layers", fontsize=8, color=INK)
    axes.set_ylabel("first layer's error over the last's", fontsize=8, color=INK)
    axes.set_title("Depth makes the product long", fontsize=10)


def _label(name: str) -> str:
    return name.replace("init_", "").replace("+", " + ").replace("_", " ")


def _ratio(many: Many) -> float:
    ratio = many.middle("error_ratio")
    return ratio if ratio > 0 else math.nan
