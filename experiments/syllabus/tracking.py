"""What MLflow holds of the syllabus: a run for each training, below one for all."""

from __future__ import annotations

import math
import time
from pathlib import Path

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from experiments.syllabus.claims import Setting
from experiments.syllabus.course import EVERY
from experiments.syllabus.judging import Results, judge
from experiments.syllabus.problems import PROBLEMS
from experiments.syllabus.runs import Outcome
from grad_callbacks.tracking import default_artifacts, true_status

EXPERIMENT = "syllabus"
MEASURES = ("decay", "theory", "error_ratio", "weight_ratio", "norm_first", "norm_highest", "moved_first", "moved_last")


def log_syllabus(client: MlflowClient, results: Results, document: Path, picture: Figure) -> str:
    """Log one run per training, and one for all with the document and the picture; return the id of the latter.

    ===============  ================================================================================================
    parameters       problem, kind, net, cure, guard, biases, seed
    metrics          ``quality``; ``loss`` over the steps; decay, theory, error_ratio, weight_ratio and others
    tags             ``grad.verdict``, ``grad.outcome``, ``grad.cause``, ``grad.remedies``, ``held``
    ===============  ================================================================================================
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = found.experiment_id if found else client.create_experiment(EXPERIMENT, default_artifacts())
    parent = str(client.create_run(experiment_id, run_name="syllabus").info.run_id)
    with true_status(client, parent):
        for setting, many in results.items():
            held = judge(setting, results)
            for outcome in many.outcomes:
                tags = {"mlflow.parentRunId": parent}
                name = f"{setting.name}/seed{outcome.seed}"
                run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
                with true_status(client, run_id):
                    _log(client, run_id, setting, outcome, held)
        client.log_artifact(parent, str(document))
        client.log_figure(parent, picture, "syllabus.png")
    return parent


def _log(client: MlflowClient, run_id: str, setting: Setting, outcome: Outcome, held: str) -> None:
    now, problem = int(time.time() * 1000), PROBLEMS[setting.problem]
    params = {
        "problem": problem.name,
        "kind": problem.kind,
        "net": problem.net,
        "cure": "+".join(setting.cures) or "none",
        "guard": setting.guard,
        "biases": str(setting.biases),
        "seed": str(outcome.seed),
    }
    tags = {
        "grad.verdict": outcome.verdict,
        "grad.outcome": outcome.outcome,
        "grad.cause": outcome.alert.get("cause", ""),
        "grad.remedies": ", ".join(outcome.remedies),
        "held": held,
    }
    values = {"quality": outcome.quality, **{name: outcome.measured[name] for name in MEASURES}}
    metrics = [Metric(name, value, now, 0) for name, value in values.items() if math.isfinite(value)]
    losses = enumerate(outcome.measured["losses"])
    metrics += [Metric("loss", loss, now, place * EVERY) for place, loss in losses if math.isfinite(loss)]
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
