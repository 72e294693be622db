"""The newest value of a metric in each run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REQUESTS_AT_ONCE = 8  # to the server


def last_values(client: MlflowClient, runs: Sequence[Run], metric: str) -> dict[str, float]:
    """Return the newest value of a metric of each run, by the run's id.

    MLflow's own last value is that of the highest step: in a run that was continued from an earlier checkpoint it may
    be of the part that was given up.

    Args:
        client: Of the server that has the runs.
        runs: Those that lack the metric are left out.
        metric: Its name.
    """

    def newest(run: Run) -> tuple[str, float]:
        history = client.get_metric_history(run.info.run_id, metric)
        last = max(history, key=lambda one: (one.timestamp, one.step), default=None)
        return run.info.run_id, math.nan if last is None else last.value

    wanted = [run for run in runs if metric in run.data.metrics]
    try:
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return dict(pool.map(newest, wanted))
    except RuntimeError:  # no thread can be started while the program ends, as when a sweep was stopped
        return dict(map(newest, wanted))
