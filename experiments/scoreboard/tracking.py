"""What MLflow holds of a scoreboard: a run for each detector, below one for all."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.detectors import Detector
from experiments.scoreboard.scoring import Score
from grad_callbacks.tracking import default_artifacts, true_status

EXPERIMENT = "scoreboard-detect"


def log_scores(
    client: MlflowClient, choice: Choice, detectors: Sequence[Detector], scores: Sequence[Score], picture: Figure
) -> str:
    """Log one run per detector, and one for all with the picture and the table; return the id of the latter.

    ==================  ==========================================================================
    parameters          split, scenarios, seeds; of a detector also its thresholds
    metrics             as of :meth:`~experiments.scoreboard.scoring.Score.metrics`, but NaN
    ``verdicts.json``   of a detector: one row per run, with its first alarm
    ``scores.json``     of all: one row per detector
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
        for detector, score in zip(detectors, scores, strict=True):
            _log_detector(client, experiment, parent, about, detector, score)
        table = pd.DataFrame([{"detector": score.detector, **score.metrics()} for score in scores])
        client.log_table(parent, table, "scores.json")
        client.log_figure(parent, picture, "scores.png")
    return str(parent)


def _log_detector(
    client: MlflowClient, experiment: str, parent: str, about: Sequence[Param], detector: Detector, score: Score
) -> None:
    tags = {"mlflow.parentRunId": parent, "detector": detector.name}
    run_id = client.create_run(experiment, run_name=detector.name, tags=tags).info.run_id
    with true_status(client, run_id):
        now = int(time.time() * 1000)
        known = {name: value for name, value in score.metrics().items() if not math.isnan(value)}
        thresholds = [Param(name, str(value)) for name, value in detector.thresholds.items() if name != "name"]
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in known.items()],
            params=[*about, *thresholds],
            tags=[RunTag("mlflow.note.content", (type(detector).__doc__ or "").strip())],
        )
        client.log_table(run_id, verdict_table(score), "verdicts.json")


def verdict_table(score: Score) -> pd.DataFrame:
    """Return one row per run."""
    columns = ["scenario", "seed", "kind", "result", "step", "said", "cause", "rule", "alarms", "delay", "lead"]
    rows = []
    for verdict in score.verdicts:
        alarm = verdict.alarm
        rows.append(
            {
                "scenario": verdict.scenario,
                "seed": verdict.seed,
                "kind": verdict.kind or "healthy",
                "result": verdict.result,
                "step": None if alarm is None else alarm.step,
                "said": "" if alarm is None else "/".join(alarm.kinds),
                "cause": "" if alarm is None else alarm.cause,
                "rule": "" if alarm is None else alarm.rule,
                "alarms": verdict.alarms,
                "delay": None if math.isnan(verdict.delay) else verdict.delay,
                "lead": None if math.isnan(verdict.lead) else verdict.lead,
            }
        )
    return pd.DataFrame(rows, columns=columns)
