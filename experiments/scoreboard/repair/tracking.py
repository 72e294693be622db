"""What MLflow holds of a repair scoreboard: a run for each treatment, below one for all."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.repair.scoring import Score
from experiments.scoreboard.repair.treatments import Treatment
from grad_callbacks.tracking import default_artifacts, true_status

EXPERIMENT = "scoreboard-repair"


def log_repairs(
    client: MlflowClient,
    choice: Choice,
    treatments: Mapping[str, Treatment],
    scores: Sequence[Score],
    picture: Figure,
) -> str:
    """Log one run per treatment, and one for all with the picture and the table; return the id of the latter.

    ==================  ==========================================================================
    parameters          split, scenarios, seeds; of a treatment also its guard
    metrics             as of :meth:`~experiments.scoreboard.repair.scoring.Score.metrics`, but NaN
    ``outcomes.json``   of a treatment: one row per run
    ``scores.json``     of all: one row per treatment
    ``scores.png``      of all: the picture
    ==================  ==========================================================================
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, default_artifacts())
    about = [
        Param("split", choice.split),
        Param("scenarios", str(len(choice.scenarios))),
        Param("seeds", " ".join(map(str, choice.seeds))),
    ]
    parent = client.create_run(experiment, run_name=choice.title).info.run_id
    with true_status(client, parent):
        client.log_batch(parent, params=about)
        for score in scores:
            treatment = treatments.get(score.treatment, Treatment(score.treatment, ""))
            _log_treatment(client, experiment, parent, about, treatment, score)
        table = pd.DataFrame([{"treatment": score.treatment, **score.metrics()} for score in scores])
        client.log_table(parent, table, "scores.json")
        client.log_figure(parent, picture, "scores.png")
    return str(parent)


def _log_treatment(
    client: MlflowClient, experiment: str, parent: str, about: Sequence[Param], treatment: Treatment, score: Score
) -> None:
    tags = {"mlflow.parentRunId": parent, "treatment": treatment.name}
    run_id = client.create_run(experiment, run_name=treatment.name, tags=tags).info.run_id
    with true_status(client, run_id):
        now = int(time.time() * 1000)
        known = {name: value for name, value in score.metrics().items() if not math.isnan(value)}
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in known.items()],
            params=[*about, Param("guard", json.dumps(treatment.guard)[:500])],
            tags=[RunTag("mlflow.note.content", treatment.what)],
        )
        client.log_table(run_id, outcome_table(score), "outcomes.json")


def outcome_table(score: Score) -> pd.DataFrame:
    """Return one row per run."""
    columns = [
        "scenario",
        "seed",
        "kind",
        "result",
        "before",
        "after",
        "quality",
        "seconds",
        "alerts",
        "remedies",
        "error",
    ]
    rows = []
    for verdict in score.verdicts:
        outcome = verdict.outcome
        rows.append(
            {
                "scenario": outcome.scenario,
                "seed": outcome.seed,
                "kind": verdict.kind or "healthy",
                "result": verdict.result,
                "before": verdict.before,
                "after": verdict.after,
                "quality": None if math.isnan(outcome.quality) else outcome.quality,
                "seconds": None if math.isnan(outcome.seconds) else outcome.seconds,
                "alerts": "/".join(outcome.alerted),
                "remedies": ", ".join(outcome.remedies),
                "error": outcome.error,
            }
        )
    return pd.DataFrame(rows, columns=columns)
