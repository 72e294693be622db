"""Runs side by side, read back from MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from rich.box import SIMPLE_HEAD
from rich.table import Table

from grad_callbacks.tracking.comparison.significance import sign_flip_p
from grad_callbacks.tracking.journal.child_runs import TRIAL_TAG

EXPERIMENT = "grad-callbacks"
METRICS = ("val/accuracy", "val/quality", "val/acc", "val_acc", "val_accuracy", "val/loss", "val_loss", "train/loss")
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
    "sweep",
)
KEYS = ["scenario", "variant", "guard"]  # what tells the rows of a comparison over seeds apart
SWEPT = "sweep.swept"  # tag of a sweep's parent run: the tags that tell its jobs apart, separated by spaces
_UNGUARDED = ("none", "monitor")  # guards that never change training, in order of preference as a baseline


def compare(
    client: MlflowClient,
    experiment: str = EXPERIMENT,
    *,
    metric: str | None = None,
    group: Sequence[str] = (),
    baseline: Mapping[str, str] | None = None,
    sweep: str | None = None,
) -> pd.DataFrame:
    """Return one row per run, the latest of each scenario, variant, guard and seed; a finished one if there is.

    Args:
        client: Where the runs are kept.
        experiment: The name of the MLflow experiment.
        metric: What is compared, by its last value; by default the first of :data:`METRICS` that a run has. Of one
            with ``loss`` or ``error`` in its name less is better.
        group: Parameters or tags that tell variants apart, such as ``optimizer.lr``; by default what a ``sweep`` has
            swept, or else the parameter ``variant``.
        baseline: Parameters or tags of the runs that the others are compared with. By default those without a guard
            or with a monitor only: of variant ``plain``, or with ``group`` of the same variant. A run that has none
            to be compared with it is no baseline.
        sweep: Only the runs of this sweep: its parent run's id or name, or ``"latest"``.

    Returns:
        Columns as in :data:`COLUMNS`. ``accuracy`` is the metric, ``difference`` how much better it is than the
        baseline's of the same scenario and seed (NaN without one). The name of the metric is in ``attrs["metric"]``,
        whether less of it is better in ``attrs["less_is_better"]``.

    Raises:
        ValueError: If there is no such experiment or sweep; the message names those that there are.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(repr(e.name) for e in client.search_experiments()) or "none"
        raise ValueError(f"there is no experiment {experiment!r} in this store; there are: {names}")
    runs = [run for run in _runs(client, found.experiment_id) if TRIAL_TAG not in run.data.tags]
    parents = {run.data.tags.get(MLFLOW_PARENT_RUN_ID, "") for run in runs}
    if sweep is not None:
        parent = _sweep(runs, parents, sweep)
        group = group or parent.data.tags.get(SWEPT, "").split()
        runs = [run for run in runs if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id]
    runs = [run for run in runs if run.info.run_id not in parents]
    metric = metric or next((name for name in METRICS if any(name in run.data.metrics for run in runs)), METRICS[0])
    table = pd.DataFrame([_row(run, metric, group, baseline) for run in runs], columns=[*COLUMNS, "is_baseline"])
    finished_first = table.sort_values("status", key=lambda status: status != "FINISHED", kind="stable")
    table = finished_first.drop_duplicates([*KEYS, "seed"])
    table = table.sort_index(ascending=False).reset_index(drop=True)  # the oldest first
    less_is_better = any(word in metric.lower() for word in ("loss", "error", "perplexity"))
    told: dict[Any, Any] = {"metric": metric, "less_is_better": less_is_better, "experiment": experiment}
    strata = ["scenario", "variant", "seed"] if group and baseline is None else ["scenario", "seed"]
    if len(table):
        table = _with_difference(table, strata, -1.0 if less_is_better else 1.0)
    table.attrs = told
    return table


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per scenario, variant and guard: mean and spread over seeds, and how far from the baseline.

    Args:
        table: From :func:`compare`.

    Returns:
        Columns ``scenario``, ``variant``, ``guard``, ``seeds`` (runs with a value), ``failed`` (runs without), ``mean``
        and ``spread`` (standard deviation) of the metric, ``pairs`` (seeds that the baseline has too), ``gain`` and
        ``gain_spread`` of the paired differences, ``p`` (see
        ``sign_flip_p``; not corrected for the number of rows; NaN below six
        pairs and for the baseline itself), ``verdict`` and ``outcome`` (the most frequent), ``repaired`` (share of the
        runs with an alert that were), ``remedies``, ``is_baseline``.
    """
    rows = [_over_seeds(dict(zip(KEYS, key, strict=True)), runs) for key, runs in table.groupby(KEYS, sort=False)]
    columns = [*KEYS, "seeds", "failed", "mean", "spread", "pairs", "gain", "gain_spread", "p"]
    made = pd.DataFrame(rows, columns=[*columns, "verdict", "outcome", "repaired", "remedies", "is_baseline"])
    made.attrs = dict(table.attrs)
    return made


def has_several_seeds(table: pd.DataFrame) -> bool:
    """True if some runs differ by their seed only."""
    return bool(table.duplicated(KEYS).any())


def comparison_table(table: pd.DataFrame) -> Table:
    """Return the comparison run by run, for a terminal of 80 columns."""
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


def over_seeds_table(groups: pd.DataFrame) -> Table:
    """Return the comparison over seeds for a terminal of 80 columns.

    Args:
        groups: From :func:`over_seeds`.
    """
    view = _view()
    view.add_column("runs", no_wrap=True)
    view.add_column("seeds", justify="right")
    view.add_column("verdict", no_wrap=True)
    view.add_column("repaired", justify="right")
    view.add_column(str(groups.attrs.get("metric", "final")), justify="right", no_wrap=True)
    view.add_column("gain", justify="right", no_wrap=True)
    view.add_column("p", justify="right", no_wrap=True)
    for scenario, rows in groups.groupby("scenario", sort=False):
        view.add_row(f"[bold]{scenario}[/bold]")
        for _, row in rows.iterrows():
            failed = f" ({row['failed']} failed)" if row["failed"] else ""
            view.add_row(
                f"  {run_label(row)}",
                f"{row['seeds']}{failed}",
                row["verdict"] or "–",
                "–" if math.isnan(row["repaired"]) else f"{row['repaired']:.0%}",
                plus_minus(row["mean"], row["spread"]),
                "baseline" if row["is_baseline"] else plus_minus(row["gain"], row["gain_spread"], sign=True),
                "" if math.isnan(row["p"]) else f"{row['p']:.3f}",
            )
        view.add_section()
    return view


def plus_minus(mean: float, spread: float, sign: bool = False) -> str:
    """Write a mean with its spread: ``0.953 ± 0.012``; a dash where there is none."""
    if math.isnan(mean):
        return "–"
    told = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return told if math.isnan(spread) else f"{told} ± {spread:.3f}"


def run_label(row: Any) -> str:
    """Name a run within its scenario by what was changed in the model and by its guard."""
    guard = "unguarded" if row["guard"] == "none" else str(row["guard"])
    parts = [*([] if row["variant"] == "plain" else [str(row["variant"])]), *([guard] if guard else [])]
    return ", ".join(parts) or "run"


def _view() -> Table:
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)


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


def _sweep(runs: Sequence[Run], parents: set[str], wanted: str) -> Run:
    sweeps = [run for run in runs if run.info.run_id in {*parents, wanted}]  # the latest first
    for run in sweeps:
        if wanted in (run.info.run_id, run.info.run_name, "latest"):
            return run
    names = ", ".join(repr(run.info.run_name) for run in sweeps) or "none"
    raise ValueError(f"there is no sweep {wanted!r} in this experiment; there are: {names}")


def _row(run: Run, metric: str, group: Sequence[str], baseline: Mapping[str, str] | None) -> dict[str, Any]:
    params, tags = run.data.params, run.data.tags
    variant = ", ".join(f"{_short(name)}={params.get(name, tags.get(name, '–'))}" for name in group)
    scenario = "all runs" if group else run.info.run_name
    guard = params.get("guard.name", "")
    if baseline is None:
        is_baseline = guard in _UNGUARDED and (bool(group) or params.get("variant", "plain") == "plain")
    else:
        is_baseline = all(params.get(name, tags.get(name)) == str(value) for name, value in baseline.items())
    return {
        "scenario": params.get("scenario", scenario),
        "variant": variant or params.get("variant", "plain"),
        "guard": guard,
        "seed": params.get("seed", ""),
        "status": run.info.status,
        "verdict": tags.get("grad.verdict", ""),
        "outcome": tags.get("grad.outcome", ""),
        "first_alert_step": tags.get("grad.first_alert_step", ""),
        "remedies": tags.get("grad.remedies", ""),
        "accuracy": run.data.metrics.get(metric, float("nan")),
        "run_id": run.info.run_id,
        "sweep": tags.get(MLFLOW_PARENT_RUN_ID, ""),
        "is_baseline": is_baseline,
    }


def _short(name: str) -> str:
    return str(name.rpartition(".")[2])


def _with_difference(table: pd.DataFrame, strata: list[str], sign: float) -> pd.DataFrame:
    others = table.groupby(strata)["run_id"].transform("size") > 1
    candidates = table[table["is_baseline"] & others]
    rank = candidates["guard"].map(lambda guard: _UNGUARDED.index(guard) if guard in _UNGUARDED else 0)
    best_first = candidates.assign(rank=rank).sort_values("rank", kind="stable")
    chosen = best_first.drop_duplicates(strata)
    reference = chosen.set_index(strata)["accuracy"]
    keys = pd.MultiIndex.from_frame(table[strata])
    difference = sign * (
        table["accuracy"].to_numpy(dtype=np.float64) - reference.reindex(keys).to_numpy(dtype=np.float64)
    )
    return table.assign(difference=difference, is_baseline=table.index.isin(chosen.index))


def _over_seeds(key: dict[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    values = runs["accuracy"].where(np.isfinite(runs["accuracy"])).dropna()
    is_baseline = bool(runs["is_baseline"].any())
    gains = runs["difference"].where(np.isfinite(runs["difference"])).dropna()
    alarmed = runs[~runs["verdict"].isin(["", "healthy"])]
    remedies = dict.fromkeys(name for told in runs["remedies"] for name in told.split(", ") if name not in ("", "none"))
    return key | {
        "seeds": len(values),
        "failed": len(runs) - len(values),
        "mean": values.mean() if len(values) else math.nan,
        "spread": values.std() if len(values) > 1 else math.nan,
        "pairs": len(gains),
        "gain": gains.mean() if len(gains) else math.nan,
        "gain_spread": gains.std() if len(gains) > 1 else math.nan,
        "p": math.nan if is_baseline else sign_flip_p(gains.tolist()),
        "verdict": _most_frequent(runs["verdict"]),
        "outcome": _most_frequent(runs["outcome"]),
        "repaired": float((alarmed["outcome"] == "repaired").mean()) if len(alarmed) else math.nan,
        "remedies": ", ".join(remedies),
        "is_baseline": is_baseline,
    }


def _most_frequent(values: pd.Series[str]) -> str:
    return str(values.value_counts().index[0])
