"""The child runs of a trial, in a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.entities import Run

from grad_callbacks import GradientGuard, Trial
from grad_callbacks.tracking import JournaledMLFlowLogger, compare, sync
from tests.support.helpers import Regression, batches, fit, mlp
from tests.support.trial_faults import RaisedRate


def guard() -> GradientGuard:
    return GradientGuard({"exploding": ["ClipValue", "Rollback"]}, trial=Trial(steps=6, most=1))


def train(logger: MLFlowLogger) -> GradientGuard:
    made = guard()
    fit(Regression(mlp(4, 16, 2)), made, RaisedRate(300.0), data=batches(60), logger=logger)
    return made


def children_of(client: MlflowClient, parent: str) -> dict[str, Run]:
    experiment = client.get_experiment_by_name("plugin")
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.data.tags["grad.trial_arm"]: run for run in runs}


@pytest.mark.parametrize("kind", [pytest.param(MLFlowLogger, marks=pytest.mark.slow), JournaledMLFlowLogger])
def test_each_arm_is_a_child_run(kind: Any, client: MlflowClient, store: str, tmp_path: Path) -> None:
    logger = kind("plugin", tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri())
    made = train(logger)
    [result] = made.trials
    children = children_of(client, logger.run_id)
    assert set(children) == set(result.losses) == {"none", "ClipValue", "ClipValue from the snapshot", "Rollback"}
    for arm, run in children.items():
        assert run.info.run_name == f"trial {result.step}: {arm}"
        assert run.info.status == "FINISHED"
        assert run.data.tags["grad.trial"] == ("won" if arm == result.winner else "lost")
    won = children[result.winner]
    assert won.data.metrics["trial/score"] == pytest.approx(result.scores[result.winner])
    history = client.get_metric_history(won.info.run_id, "trial/loss")
    assert [entry.value for entry in sorted(history, key=lambda e: e.step)] == result.losses[result.winner]
    assert len(compare(client, "plugin")) == 1  # children of a trial are no runs to compare, and make no sweep


def test_what_a_dead_server_missed_is_sent_later(client: MlflowClient, store: str, tmp_path: Path) -> None:
    logger = JournaledMLFlowLogger("plugin", tracking_uri="http://127.0.0.1:9", save_dir=str(tmp_path))
    [result] = train(logger).trials
    logger.close()
    assert {synced.state for synced in sync(tmp_path / "mlflow-journal", store)} == {"sent"}
    [parent] = [
        run
        for run in client.search_runs([client.get_experiment_by_name("plugin").experiment_id])
        if "grad.trial" not in run.data.tags
    ]
    assert set(children_of(client, parent.info.run_id)) == set(result.losses)
