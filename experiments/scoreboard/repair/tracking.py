"""What MLflow holds of a repair scoreboard: a run for each treatment, below one for all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient

from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.repair.scoring import Score
from experiments.scoreboard.repair.treatments import Treatment
from experiments.scoreboard.runs import Scored, log_scoreboard

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
    scored = []
    for score in scores:
        treatment = treatments.get(score.treatment, Treatment(score.treatment, ""))
        guard = {"guard": json.dumps(treatment.guard)[:500]}
        scored.append(Scored(treatment.name, treatment.what, score.metrics(), outcome_table(score), guard))
    return log_scoreboard(client, EXPERIMENT, "treatment", "outcomes.json", choice, scored, picture)


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
