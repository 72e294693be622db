"""A run that is continued under its id from an earlier checkpoint tells one story: that of the part that lives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient

from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.support.helpers import Poisoned, mlp, trainer
from tests.support.servers import the_run
from tests.tracking.run_page.test_run_report import artifact, batches


class Saved(Poisoned):
    """Saves a checkpoint at a step, before anything goes wrong."""

    def __init__(self, factors: dict[int, float], path: Path) -> None:
        super().__init__(mlp(4, 8, 8, 2), factors=factors)
        self.path = path

    def on_train_batch_start(self, *_: Any) -> None:
        if self.global_step == 12:
            self.trainer.save_checkpoint(self.path)


def logger_of(kind: type[MLFlowLogger], store: str, tmp_path: Path, run_id: str | None = None) -> MLFlowLogger:
    artifacts = (tmp_path / "artifacts").as_uri()
    return kind("plugin", tracking_uri=store, artifact_location=artifacts, run_id=run_id)


@pytest.mark.parametrize("kind", [MLFlowLogger, JournaledMLFlowLogger])
def test_what_was_said_of_the_part_that_was_given_up_goes(
    kind: type[MLFlowLogger], client: MlflowClient, store: str, tmp_path: Path
) -> None:
    path = tmp_path / "early.ckpt"
    first = logger_of(kind, store, tmp_path)
    trainer(GradientMonitor(), logger=first, log_every_n_steps=4).fit(Saved({20: 1e3}, path), batches())
    if isinstance(first, JournaledMLFlowLogger):
        first.close()
    run = the_run(client, "plugin")
    assert run.data.tags["grad.verdict"] == "exploding"
    assert {"grad.cause", "grad.layers", "grad.first_alert_step"} < run.data.tags.keys()
    assert json.loads(artifact(client, run, "alerts.json").read_text())["data"]

    again = logger_of(kind, store, tmp_path, run.info.run_id)
    trainer(GradientMonitor(), logger=again, log_every_n_steps=4).fit(
        Saved({}, path), batches(), ckpt_path=path, weights_only=True
    )
    if isinstance(again, JournaledMLFlowLogger):
        again.close()
    run = the_run(client, "plugin")
    assert run.data.tags["grad.verdict"] == "healthy"
    assert {"grad.cause", "grad.layers", "grad.first_alert_step"}.isdisjoint(run.data.tags)
    assert json.loads(artifact(client, run, "alerts.json").read_text())["data"] == []
    tables = {one["path"] for one in json.loads(run.data.tags["mlflow.loggedArtifacts"])}
    assert "gradients/alerts.json" in tables
