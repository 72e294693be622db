"""A comparison as a table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from grad_callbacks.tracking.comparison.labels import plus_minus, run_label, seeds_label, shown

if TYPE_CHECKING:
    import pandas as pd


def comparison_table(table: pd.DataFrame) -> Table:
    """Return one row per run, for a terminal of 80 columns."""
    several_seeds = len(set(table["seed"])) > 1
    view = _view()
    view.add_column("run", no_wrap=True)
    if several_seeds:
        view.add_column("seed", justify="right")
    view.add_column("verdict", no_wrap=True)
    view.add_column("alert", justify="right", no_wrap=True)
    view.add_column("remedies", min_width=9)
    view.add_column("outcome", no_wrap=True)
    view.add_column("final", justify="right", no_wrap=True)
    view.add_column("gain", justify="right", no_wrap=True)
    for scenario, runs in table.groupby("scenario", sort=False):
        view.add_row(_text(scenario, "bold"))
        for _, row in runs.iterrows():
            view.add_row(
                _text(f"  {run_label(row)}"),
                *([_text(row["seed"])] if several_seeds else []),
                _text(row["verdict"] or "–"),
                _text(row["first_alert_step"] or "–"),
                _text("–" if row["remedies"] in ("", "none") else row["remedies"]),
                _text(row["outcome"] or "–"),
                _accuracy(row),
                "" if math.isnan(row["difference"]) else f"{row['difference']:+.3f}",
            )
        view.add_section()
    return view


def over_seeds_table(groups: pd.DataFrame) -> Table:
    """Return one row per scenario, variant and guard, for a terminal of 80 columns.

    Args:
        groups: From :func:`over_seeds`.
    """
    view = _view()
    view.add_column("runs", no_wrap=True)
    view.add_column("seeds", justify="right")
    view.add_column("verdict", no_wrap=True)
    view.add_column("repaired", justify="right")
    view.add_column(_text(groups.attrs.get("metric", "final")), justify="right", no_wrap=True)
    view.add_column("gain", justify="right", no_wrap=True)
    view.add_column("p", justify="right", no_wrap=True)
    for scenario, rows in groups.groupby("scenario", sort=False):
        view.add_row(_text(scenario, "bold"))
        for _, row in rows.iterrows():
            view.add_row(
                _text(f"  {run_label(row)}"),
                seeds_label(row),
                _text(row["verdict"] or "–"),
                "–" if math.isnan(row["repaired"]) else f"{row['repaired']:.0%}",
                plus_minus(row["mean"], row["spread"]),
                "baseline" if row["is_baseline"] else plus_minus(row["gain"], row["gain_spread"], sign=True),
                "" if math.isnan(row["p"]) else f"{row['p']:.3f}",
            )
        view.add_section()
    return view


def _text(value: object, style: str = "") -> Text:
    """A text of the store as it is: rich would take brackets in it for a style."""
    return Text(shown(value), style)


def _view() -> Table:
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)


def _accuracy(row: Any) -> str:
    if row["ended"] != "finished":
        return str(row["ended"])
    return "–" if math.isnan(row["accuracy"]) else f"{row['accuracy']:.3f}"
