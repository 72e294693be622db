"""One table of an experiment's runs, read from MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grad_callbacks.tracking.comparison.last_values import last_values
from grad_callbacks.tracking.ending import ENDED_TAG, STOPPED, ended_word
from grad_callbacks.tracking.journal.tags import PARENT_TAG, TRIAL_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "grad-callbacks"
METRICS = ("val/accuracy", "val/quality", "val/acc", "val_acc", "val_accuracy", "val/loss", "val_loss", "train/loss")
COLUMNS = (
    "scenario",
    "variant",
    "guard",
    "seed",
    "status",
    "ended",
    "verdict",
    "outcome",
    "first_alert_step",
    "remedies",
    "accuracy",
    "difference",
    "run_id",
    "sweep",
)
KEYS = ["scenario", "variant", "guard"]  # runs that agree in these differ by their seed only
MAX_NAMED = 30  # metrics that an error names
SWEPT = "sweep.swept"  # tag of a sweep's parent run: the tags that distinguish its jobs, separated by spaces
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
    """Return one row per scenario, variant, guard and seed: the latest run, if possible a finished one.

    Args:
        client: Of the server that has the runs.
        experiment: The name of the MLflow experiment.
        metric: What is compared, by its newest value; by default the first of :data:`METRICS` that a run has. Less is
            better if its name contains ``loss``, ``error`` or ``perplexity``.
        group: Parameters or tags that distinguish variants, such as ``optimizer.lr``; by default what the ``sweep``
            has varied, or else the parameter ``variant``.
        baseline: Parameters or tags of the runs that the others are compared with. By default those without a guard
            or with a monitor only: of variant ``plain``, or with ``group`` of the same variant. A run is no baseline
            if there is no other run to compare with it.
        sweep: Only the runs of this sweep: its parent run's id or name, or ``"latest"``.

    Returns:
        Columns as in :data:`COLUMNS`. ``ended`` is how the run ended: ``finished``, ``failed``, ``pruned``,
        ``preempted``, ``interrupted``, ``exited`` or ``killed``. ``accuracy`` is the metric, ``difference`` how much
        better it is than the baseline's of the same scenario and seed (NaN without one, and for a run that was stopped
        early). The name of the metric is in ``attrs["metric"]``, whether less of it is better in
        ``attrs["less_is_better"]``.

    Raises:
        ValueError: If there is no such experiment, sweep or metric; the message names the existing ones.
    """
    import pandas as pd

    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(repr(e.name) for e in client.search_experiments()) or "none"
        raise ValueError(f"there is no experiment {experiment!r} in this store; there are: {names}")
    runs = [run for run in _runs(client, found.experiment_id) if TRIAL_TAG not in run.data.tags]
    parents = {run.data.tags.get(PARENT_TAG, "") for run in runs}
    if sweep is not None:
        parent = _sweep(runs, parents, sweep)
        group = group or parent.data.tags.get(SWEPT, "").split()
        runs = [run for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
    runs = [run for run in runs if run.info.run_id not in parents]
    metric = _metric(runs, metric)
    values = last_values(client, runs, metric)
    table = pd.DataFrame([_row(run, values, group, baseline) for run in runs], columns=[*COLUMNS, "is_baseline"])
    finished_first = table.sort_values("status", key=lambda status: status != "FINISHED", kind="stable")
    table = finished_first.drop_duplicates([*KEYS, "seed"])
    table = table.sort_index(ascending=False).reset_index(drop=True)  # the oldest first
    less_is_better = any(word in metric.lower() for word in ("loss", "error", "perplexity"))
    attrs: dict[Any, Any] = {"metric": metric, "less_is_better": less_is_better, "experiment": experiment}
    strata = ["scenario", "variant", "seed"] if group and baseline is None else ["scenario", "seed"]
    if len(table):
        table = _with_difference(table, strata, -1.0 if less_is_better else 1.0)
    table.attrs = attrs
    return table


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


def _row(
    run: Run, values: Mapping[str, float], group: Sequence[str], baseline: Mapping[str, str] | None
) -> dict[str, Any]:
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
        "ended": ended_word(run.info.status, tags.get(ENDED_TAG, "")),
        "verdict": tags.get("grad.verdict", ""),
        "outcome": tags.get("grad.outcome", ""),
        "first_alert_step": tags.get("grad.first_alert_step", ""),
        "remedies": tags.get("grad.remedies", ""),
        "accuracy": values.get(run.info.run_id, float("nan")),
        "run_id": run.info.run_id,
        "sweep": tags.get(PARENT_TAG, ""),
        "is_baseline": is_baseline,
    }


def _metric(runs: Sequence[Run], wanted: str | None) -> str:
    if wanted is None:
        return next((name for name in METRICS if any(name in run.data.metrics for run in runs)), METRICS[0])
    known = sorted({name for run in runs for name in run.data.metrics})
    if runs and wanted not in known:
        first = ", ".join(known[:MAX_NAMED]) or "none"
        more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
        raise ValueError(f"no run has a metric {wanted!r}; there are: {first}{more}")
    return wanted


def _short(name: str) -> str:
    return str(name.rpartition(".")[2])


def _with_difference(table: pd.DataFrame, strata: list[str], sign: float) -> pd.DataFrame:
    import pandas as pd

    others = table.groupby(strata)["run_id"].transform("size") > 1
    candidates = table[table["is_baseline"] & others]
    rank = candidates["guard"].map(lambda guard: _UNGUARDED.index(guard) if guard in _UNGUARDED else 0)
    best_first = candidates.assign(rank=rank).sort_values("rank", kind="stable")
    chosen = best_first.drop_duplicates(strata)
    final = table["accuracy"].where(~table["ended"].isin(STOPPED))  # one that was stopped has no final value
    reference = final[chosen.index].set_axis(pd.MultiIndex.from_frame(chosen[strata]))
    keys = pd.MultiIndex.from_frame(table[strata])
    difference = sign * (final.to_numpy(dtype=np.float64) - reference.reindex(keys).to_numpy(dtype=np.float64))
    return table.assign(difference=difference, is_baseline=table.index.isin(chosen.index))
