"""How the cost of an engine step grows with the number of tensors and with their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bench import shapes
from experiments.bench.machine import free_bytes
from experiments.bench.table import Row, Section
from experiments.bench.timing import ROUND, WARMUP, Call, Spread, interleave, ratio, seconds
from experiments.bench.weights import Nudging, Weights
from grad_callbacks import Engine

STEP = "whole engine step"
FLOOR = "reading each gradient once"
ENTRIES, TENSORS = 1_000_000, 100  # what stays the same while the other is varied
MOST_BYTES = 16 * 2**30
BYTES_PER_ENTRY = 10  # weight and gradient in float32, and room for what is passing

METHOD = f"""An engine with its default rules, nothing to treat, against `torch._foreach_norm` over the same
gradients, which reads each of them once. Either {ENTRIES:,} entries in a growing number of tensors, or {TENSORS}
tensors of growing size, as far as memory goes. A round is {ROUND} steps of both in turns, of which one also measures
weights and their motion; the first {WARMUP} steps are left out."""


@dataclass(frozen=True)
class Point:
    """The cost of one size, in seconds per step, and its ratio to the floor's."""

    tensors: int
    entries: int
    step: float
    floor: float
    ratio: Spread


def run(quick: bool, picture: Path) -> Section:
    """Time all sizes and draw the curves."""
    counts = [10, 100] if quick else [10, 30, 100, 300, 1000, 3000, 10_000]
    sizes = [10**4, 10**5] if quick else [10**5, 10**6, 10**7, 10**8, 3 * 10**8, 10**9]
    fitting = [size for size in sizes if BYTES_PER_ENTRY * size <= min(free_bytes(), MOST_BYTES)]
    by_tensors = [_time(count, ENTRIES, quick) for count in counts]
    by_entries = [_time(TENSORS, size, quick) for size in fitting]
    _draw(by_tensors, by_entries, picture)
    growth = (
        "From the middle of each curve on, the time of a step (of the floor) grows with the number of tensors to the\n"
        f"power of {_powers(by_tensors, 'tensors')}, and with the number of entries to the power of "
        f"{_powers(by_entries, 'entries')}."
    )
    left_out = [f"{size:.0e}" for size in sizes[len(fitting) :]]
    missing = f" Left out for want of memory: {', '.join(left_out)} entries." if left_out else ""
    rows = [Row(_case(point), STEP, FLOOR, point.ratio) for point in [*by_tensors, *by_entries]]
    return Section("Cost by size", f"{METHOD}\n\n{growth}{missing}\n\n![Cost by size]({picture.name})", rows)


def _time(tensors: int, entries: int, quick: bool) -> Point:
    model = Weights(shapes.equal(tensors, entries))
    gradients = model.gradients
    optimizer = Nudging(model)
    engine = Engine(model, optimizer)

    def step() -> None:
        engine.before_step()
        optimizer.step()

    warmup, steps, rounds = (1, 2, 2) if quick else (WARMUP, ROUND, 2 if entries > 10**8 else 3)
    variants: dict[str, Call] = {STEP: step, FLOOR: lambda: torch._foreach_norm(gradients)}
    times = interleave(variants, seconds, rounds, steps, warmup)
    engine.close()
    median = {name: float(np.median(values)) for name, values in times.items()}
    return Point(tensors, entries, median[STEP], median[FLOOR], ratio(times[STEP], times[FLOOR]))


def _case(point: Point) -> str:
    return f"{point.tensors:,} tensors, {point.entries:.0e} entries, floor {1000 * point.floor:.3g} ms"


def _powers(points: Sequence[Point], x: str) -> str:
    upper = points[len(points) // 2 - 1 :]
    sizes, steps, floors = np.log([[getattr(point, x), point.step, point.floor] for point in upper]).T
    return f"{np.polyfit(sizes, steps, 1)[0]:.2f} ({np.polyfit(sizes, floors, 1)[0]:.2f})"


def _draw(by_tensors: Sequence[Point], by_entries: Sequence[Point], path: Path) -> None:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(left, by_tensors, "tensors", f"tensors, {ENTRIES:,} entries together")
    _curves(right, by_entries, "entries", f"entries in {TENSORS} tensors")
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _curves(axes: Axes, points: Sequence[Point], x: str, label: str) -> None:
    places = [getattr(point, x) for point in points]
    axes.loglog(places, [1000 * point.step for point in points], "o-", label="engine step")
    axes.loglog(places, [1000 * point.floor for point in points], "s--", color="gray", label=FLOOR)
    axes.set_xlabel(label)
    axes.set_ylabel("milliseconds a step")
    axes.spines[["top", "right"]].set_visible(False)
