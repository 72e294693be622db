"""One run as one page: interactive, self-contained, without any request to the network.

Made by hand rather than with a plotting library: that would put the same 4.5 MB of script into the artifacts of every
run, where this page has some 30 KB beside its numbers.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement.histograms import HISTOGRAM, Histogram
from grad_callbacks.tracking.run_page.grid import Grid, grid_of
from grad_callbacks.tracking.run_page.pictures import profile_steps
from grad_callbacks.tracking.run_page.tables import alert_rows, intervention_rows
from grad_callbacks.tracking.secrets.masking import mask

MAX_POINTS = 2000  # of a line
MAX_TABLE = 200  # rows of a table
VALUES = ("norm", "rms", "update_ratio", "weight_norm")
_NOTHING, _ZERO, _NONFINITE, _LARGEST = -32768, -32767, 32767, 32000
_PLACE = "/*DATA*/"


def run_page(
    name: str,
    verdict: str,
    outcome: str,
    summary: Sequence[tuple[str, str]],
    history: pd.DataFrame,
    course: pd.DataFrame,
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
        course: One row per step, as ``StepSeries.to_frame`` returns it; may be empty.
        alerts: In the order they were raised; the first 200 are listed.
        interventions: In the order they were made; the first 200 are listed.
        histograms: Of the gradients' entries.
        environment: Versions and the like.
    """
    told = {
        "name": name,
        "verdict": verdict,
        "outcome": outcome,
        "summary": [list(line) for line in summary],
        "alerts": alert_rows(alerts[:MAX_TABLE]),
        "interventions": intervention_rows(interventions[:MAX_TABLE]),
        "environment": dict(environment or {}),
    }
    drawn = {
        "grids": {value: _grid(history, value) for value in VALUES if value in history},
        "course": _course(course),
        "profiles": profile_steps(history, alerts),
        "histograms": [
            {"step": taken.step, "layers": list(taken.layers), "shares": np.round(taken.shares, 4).tolist()}
            for taken in histograms
        ],
        "bins": {"lowest": HISTOGRAM.lowest, "highest": HISTOGRAM.highest, "per_decade": HISTOGRAM.per_decade},
    }
    return filled(template("run_page/page.html"), mask(told) | drawn)


def template(name: str) -> str:
    """Read one of the package's pages, with what all pages have in common put into it."""
    page = _read(name)
    for place, shared in (("/*STYLE*/", "run_page/shared.css"), ("/*SCRIPT*/", "run_page/shared.js")):
        page = page.replace(place, _read(shared).strip(), 1)
    return page


def filled(page: str, data: Mapping[str, Any]) -> str:
    """Put the data into a page, so that no text in it can end the script."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return page.replace(_PLACE, text.replace("<", "\\u003c"), 1)


def _read(name: str) -> str:
    return files("grad_callbacks.tracking").joinpath(name).read_text(encoding="utf-8")


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


def _course(course: pd.DataFrame) -> dict[str, list[Any]]:
    rows = course[course["optimizer"] == course["optimizer"].min()]
    if len(rows) > MAX_POINTS:  # of each span the row with the largest norm: a spike is not lost
        span = np.arange(len(rows)) * MAX_POINTS // len(rows)
        size = np.nan_to_num(rows["norm"].to_numpy(), nan=math.inf, posinf=math.inf)
        order = np.lexsort((size, span))
        rows = rows.iloc[np.sort(order[np.append(np.diff(span[order]) > 0, True)])]
    columns = ("norm", "norm_clipped", "lr_effective", "loss")
    return {"step": rows["step"].tolist()} | {
        name: [float(f"{value:.6g}") if math.isfinite(value) else None for value in rows[name]] for name in columns
    }
