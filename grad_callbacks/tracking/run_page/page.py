"""One run as one interactive, self-contained page that makes no request to the network.

It uses no plotting library: that would add 4.5 MB of script to the artifacts of every run; this page adds 30 KB.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.tracking.kinds import colours_of
from grad_callbacks.tracking.page_template import filled, template
from grad_callbacks.tracking.run_page.grid import Grid, grid_of
from grad_callbacks.tracking.run_page.pictures import profile_steps
from grad_callbacks.tracking.run_page.tables import alert_rows, intervention_rows
from grad_callbacks.tracking.secrets.masking import mask

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 2000  # of a line in a chart
MAX_ROWS = 200  # of a table
VALUES = ("norm", "rms", "update_ratio", "weight_norm")
# A cell of a grid holds hundredths of log10, up to ±_LARGEST, or one of these codes.
_NOTHING, _ZERO, _NONFINITE = -32768, -32767, 32767
_LARGEST = 32000


def run_page(
    name: str,
    verdict: str,
    outcome: str,
    summary: Sequence[tuple[str, str]],
    history: pd.DataFrame,
    steps: pd.DataFrame,
    alerts: Sequence[Alert],
    interventions: Sequence[Intervention],
    histograms: Sequence[Histogram] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        name: The run's name.
        verdict: What was wrong with it.
        outcome: How it ended.
        summary: Headings and sentences.
        history: One row per step and layer, at least one.
        steps: One row per step, as ``StepSeries.to_frame`` returns it; may be empty.
        alerts: In the order they were raised; the first 200 are listed.
        interventions: In the order they were applied; the first 200 are listed.
        histograms: Of the gradients' entries.
        environment: Versions and the like.
    """
    kinds = [alert.kind for alert in alerts] + [made.alert_kind for made in interventions]
    texts = {
        "name": name,
        "verdict": verdict,
        "outcome": outcome,
        "summary": [list(line) for line in summary],
        "alerts": alert_rows(alerts[:MAX_ROWS]),
        "interventions": intervention_rows(interventions[:MAX_ROWS]),
        "environment": dict(environment or {}),
        "kinds": [list(pair) for pair in colours_of(kinds).items()],
    }
    numbers = {
        "grids": {value: _grid(history, value) for value in VALUES if value in history},
        "steps": _lines(steps),
        "profiles": profile_steps(history, alerts),
        "histograms": [
            {"step": taken.step, "layers": list(taken.layers), "shares": np.round(taken.shares, 4).tolist()}
            for taken in histograms
        ],
        "bins": {"lowest": HISTOGRAM.lowest, "highest": HISTOGRAM.highest, "per_decade": HISTOGRAM.per_decade},
    }
    return filled(template("run_page/page.html"), mask(texts) | numbers)


def _grid(history: pd.DataFrame, value: str) -> dict[str, Any]:
    grid = grid_of(history, value, keeps_nan=value in ("update_ratio", "weight_norm"))
    return {
        "layers": list(grid.layers),
        "first": grid.first,
        "last": int(history["step"].max()),
        "width": grid.width,
        "cells": base64.b64encode(_cells(grid).tobytes()).decode(),
    }


def _cells(grid: Grid) -> np.ndarray[Any, np.dtype[np.int16]]:
    hundredths = np.clip(np.round(np.nan_to_num(grid.log10, nan=0.0) * 100), -_LARGEST, _LARGEST)
    cells = np.where(np.isfinite(grid.log10), hundredths, _NOTHING)
    cells[grid.zero], cells[grid.nonfinite] = _ZERO, _NONFINITE
    return cells.astype("<i2")


def _lines(steps: pd.DataFrame) -> dict[str, list[Any]]:
    rows = steps[steps["optimizer"] == steps["optimizer"].min()]
    if len(rows) > MAX_POINTS:  # of each span the row with the largest norm, so that spikes stay
        span = np.arange(len(rows)) * MAX_POINTS // len(rows)
        size = np.nan_to_num(rows["norm"].to_numpy(), nan=math.inf, posinf=math.inf)
        order = np.lexsort((size, span))
        rows = rows.iloc[np.sort(order[np.append(np.diff(span[order]) > 0, True)])]
    columns = ("norm", "norm_clipped", "lr_effective", "loss")
    return {"step": rows["step"].tolist()} | {
        name: [float(f"{value:.6g}") if math.isfinite(value) else None for value in rows[name]] for name in columns
    }
