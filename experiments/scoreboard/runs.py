"""What a scoreboard's runs in MLflow have in common: one run for all, with a child for each thing that was scored."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from experiments.scoreboard.choosing import Choice
from grad_callbacks.tracking import default_artifacts, true_status


@dataclass(frozen=True)
class Scored:
    """One of those that were scored.

    Attributes:
        name: Of its run.
        what: Its description.
        metrics: Those that are NaN are left out.
        table: One row per run that it was scored on.
        params: Its settings.
    """

    name: str
    what: str
    metrics: Mapping[str, float]
    table: pd.DataFrame
    params: Mapping[str, str] = field(default_factory=dict)


def log_scoreboard(
    client: MlflowClient,
    experiment: str,
    kind: str,
    file: str,
    choice: Choice,
    scored: Sequence[Scored],
    picture: Figure,
) -> str:
    """Log one run for each, and one for all with the picture and the table; return the id of the latter.

    Args:
        client: Where the runs go.
        experiment: The MLflow experiment; made if it is not there.
        kind: What is scored, in one word: the tag of its runs, and a column of ``scores.json``.
        file: The artifact that holds each one's table.
        choice: What they were scored on.
        scored: Those that were scored.
        picture: Of all.
    """
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, default_artifacts())
    about = {
        "split": choice.split,
        "scenarios": str(len(choice.scenarios)),
        "seeds": " ".join(map(str, choice.seeds)),
    }
    parent = str(client.create_run(experiment_id, run_name=choice.title).info.run_id)
    with true_status(client, parent):
        client.log_batch(parent, params=_params(about))
        for one in scored:
            tags = {"mlflow.parentRunId": parent, kind: one.name}
            run_id = client.create_run(experiment_id, run_name=one.name, tags=tags).info.run_id
            with true_status(client, run_id):
                _log(client, run_id, about, one)
                client.log_table(run_id, one.table, file)
        client.log_table(parent, pd.DataFrame([{kind: one.name, **one.metrics} for one in scored]), "scores.json")
        client.log_figure(parent, picture, "scores.png")
    return parent


def _log(client: MlflowClient, run_id: str, about: Mapping[str, str], one: Scored) -> None:
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in one.metrics.items() if not math.isnan(value)],
        params=_params({**about, **one.params}),
        tags=[RunTag("mlflow.note.content", one.what)],
    )


def _params(values: Mapping[str, str]) -> list[Param]:
    return [Param(name, value) for name, value in values.items()]
