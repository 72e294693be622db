"""What MLflow holds of a scoreboard: a run for each detector, below one for all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient

from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.detectors import Detector
from experiments.scoreboard.runs import Scored, log_scoreboard
from experiments.scoreboard.scoring import Score

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
    scored = [
        Scored(
            detector.name,
            (type(detector).__doc__ or "").strip(),
            score.metrics(),
            verdict_table(score),
            {name: str(value) for name, value in detector.thresholds.items() if name != "name"},
        )
        for detector, score in zip(detectors, scores, strict=True)
    ]
    return log_scoreboard(client, EXPERIMENT, "detector", "verdicts.json", choice, scored, picture)


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
