"""Runs side by side, read back from MLflow."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.box import SIMPLE_HEAD
from rich.table import Table

EXPERIMENT = "grad-callbacks"
COLUMNS = (
    "scenario",
    "variant",
    "guard",
    "seed",
    "status",
    "verdict",
    "outcome",
    "first_alert_step",
    "remedies",
    "accuracy",
    "difference",
    "run_id",
)
_UNGUARDED = ("none", "monitor")  # guards that never change training, in order of preference as a baseline


def compare(client: MlflowClient, experiment: str = EXPERIMENT) -> pd.DataFrame:
    """Return one row per run, the latest of each scenario, variant, guard and seed; a finished one if there is.

    Args:
        client: Where the runs are kept.
        experiment: The name of the MLflow experiment.

    Returns:
        Columns as in :data:`COLUMNS`. ``accuracy`` is the last ``val/accuracy``, ``difference`` that minus the
        accuracy of the unguarded, unchanged run of the same scenario and seed (NaN without one).

    Raises:
        ValueError: If there is no such experiment; the message names those that there are.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(repr(e.name) for e in client.search_experiments()) or "none"
        raise ValueError(f"there is no experiment {experiment!r} in this store; there are: {names}")
    table = pd.DataFrame([_row(run) for run in _runs(client, found.experiment_id)], columns=COLUMNS)
    finished_first = table.sort_values("status", key=lambda status: status != "FINISHED", kind="stable")
    table = finished_first.drop_duplicates(["scenario", "variant", "guard", "seed"])
    return _with_difference(table.sort_index(ascending=False).reset_index(drop=True))  # the oldest first


def comparison_table(table: pd.DataFrame) -> Table:
    """Return the comparison for a terminal of 80 columns."""
    several_seeds = len(set(table["seed"])) > 1
    view = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
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
        view.add_row(f"[bold]{scenario}[/bold]")
        for _, row in runs.iterrows():
            view.add_row(
                f"  {run_label(row)}",
                *([str(row["seed"])] if several_seeds else []),
                row["verdict"] or "–",
                row["first_alert_step"] or "–",
                "–" if row["remedies"] in ("", "none") else row["remedies"],
                row["outcome"] or "–",
                _accuracy(row),
                "" if pd.isna(row["difference"]) else f"{row['difference']:+.3f}",
            )
        view.add_section()
    return view


def run_label(row: Any) -> str:
    """Name a run within its scenario by what was changed in the model and by its guard."""
    guard = "unguarded" if row["guard"] == "none" else row["guard"]
    return guard if row["variant"] == "plain" else f"{row['variant']}, {guard}"


def _accuracy(row: Any) -> str:
    if row["status"] != "FINISHED":
        return str(row["status"]).lower()
    return "–" if pd.isna(row["accuracy"]) else f"{row['accuracy']:.3f}"


def _runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], order_by=["attributes.start_time DESC"], page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _row(run: Run) -> dict[str, Any]:
    params, tags = run.data.params, run.data.tags
    return {
        "scenario": params.get("scenario", run.info.run_name),
        "variant": params.get("variant", "plain"),
        "guard": params.get("guard.name", ""),
        "seed": params.get("seed", ""),
        "status": run.info.status,
        "verdict": tags.get("grad.verdict", ""),
        "outcome": tags.get("grad.outcome", ""),
        "first_alert_step": tags.get("grad.first_alert_step", ""),
        "remedies": tags.get("grad.remedies", ""),
        "accuracy": run.data.metrics.get("val/accuracy", float("nan")),
        "run_id": run.info.run_id,
    }


def _with_difference(table: pd.DataFrame) -> pd.DataFrame:
    plain = table[(table["variant"] == "plain") & table["guard"].isin(_UNGUARDED)]
    best_first = plain.assign(rank=plain["guard"].map(_UNGUARDED.index)).sort_values("rank")
    baseline = best_first.drop_duplicates(["scenario", "seed"]).set_index(["scenario", "seed"])["accuracy"]
    keys = pd.MultiIndex.from_frame(table[["scenario", "seed"]])
    return table.assign(difference=table["accuracy"].to_numpy() - baseline.reindex(keys).to_numpy())
