"""A small chart of the gradient norm over steps, as SVG without script, network or another package."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.reporting.alert_text import heading, intervention_line
from grad_callbacks.tracking.kinds import colour_of

WIDTH, HEIGHT = 640, 180  # pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 24  # margins, pixels
MAX_POINTS = 400  # points of the line: beyond it the largest norm of several steps stands for them
MAX_MARKS = 100  # vertical lines of alerts, and of interventions: beyond it the first ones are drawn
LINE, TREATED, AXIS = "#444444", "#2e6fb7", "#9a9a9a"

Point = tuple[float, float]  # step and norm


def norm_chart(points: Sequence[Point], alerts: Sequence[Alert], interventions: Sequence[Intervention]) -> str:
    """Return the chart: the norm on a logarithmic scale, dashed lines at alerts, solid ones at interventions.

    Args:
        points: Step and global norm, in the order of the steps; NaN, infinite and zero norms are gaps.
        alerts: In the colour of their kind.
        interventions: Drawn in blue.

    Returns:
        An ``<svg>`` element; an empty text if no norm can be shown.
    """
    drawable = [point for point in points if _is_drawable(point)]
    if not drawable:
        return ""
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    logs = [math.log10(norm) for _, norm in drawable]
    low, high = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(step, first), last) - first) / (last - first)

    def y(log: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - log) / (high - low)

    marks = [(a.step, colour_of(a.kind), ' stroke-dasharray="4 3"', heading(a)) for a in alerts[:MAX_MARKS]]
    marks += [(made.step, TREATED, "", intervention_line(made)) for made in interventions[:MAX_MARKS]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img" '
        'aria-label="gradient norm over steps" font-family="sans-serif" font-size="11">',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="{AXIS}"/>',
        _label(LEFT - 4, TOP + 8, "end", f"1e{high}"),
        _label(LEFT - 4, HEIGHT - BOTTOM, "end", f"1e{low}"),
        _label(LEFT, HEIGHT - 8, "start", f"step {first:.0f}"),
        _label(WIDTH - RIGHT, HEIGHT - 8, "end", f"step {last:.0f}"),
    ]
    for step, colour, dashes, text in marks:
        place = f"M{x(step):.1f} {TOP}V{HEIGHT - BOTTOM}"
        parts.append(f'<path d="{place}" stroke="{colour}"{dashes}><title>{escape(text)}</title></path>')
    for stretch in _stretches(_thinned(points)):
        line = " ".join(f"{x(step):.1f},{y(math.log10(norm)):.1f}" for step, norm in stretch)
        if len(stretch) == 1:
            line = f"{line} {line}"
        parts.append(f'<polyline points="{line}" fill="none" stroke="{LINE}" stroke-linecap="round"/>')
    return "".join([*parts, "</svg>"])


def _is_drawable(point: Point) -> bool:
    return math.isfinite(point[1]) and point[1] > 0


def _thinned(points: Sequence[Point]) -> Iterator[Point]:
    """At most MAX_POINTS points: of each stretch the largest norm, or a gap where there is one."""
    size = math.ceil(len(points) / MAX_POINTS)
    for start in range(0, len(points), size):
        some = points[start : start + size]
        yield next((point for point in some if not _is_drawable(point)), max(some, key=lambda point: point[1]))


def _stretches(points: Iterator[Point]) -> Iterator[list[Point]]:
    return (list(some) for drawable, some in groupby(points, _is_drawable) if drawable)


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#555555">{escape(text)}</text>'
