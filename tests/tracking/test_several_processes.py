"""Trainings of two processes, which are one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.servers import artifacts_of, steps_of, the_run

SCRIPT = """
import sys
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.tracking.training import Model, fit

class Noting(Model):
    def on_train_end(self):
        if self.trainer.is_global_zero:
            self.logger.experiment.log_text(self.logger.run_id, "once", "note.txt")

if __name__ == "__main__":
    logger = JournaledMLFlowLogger("several")
    if "before" in sys.argv:
        logger.log_hyperparams({"logged": "before fit"})
    fit(logger, Noting(), GradientMonitor(), steps=12, devices=2, strategy=sys.argv[1])
    logger.close()
"""


@pytest.mark.parametrize("arguments", [["ddp"], ["ddp_fork", "before"]], ids=" ".join)
def test_two_processes_log_into_one_run_and_each_thing_once(
    arguments: list[str], client: MlflowClient, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    run = the_run(client, "several")
    assert run.info.status == "FINISHED"
    assert steps_of(client, run.info.run_id, "loss") == list(range(12))
    assert steps_of(client, run.info.run_id, "grad/norm") == list(range(12))
    assert run.data.params["lr"] == "0.1"
    assert ("logged" in run.data.params) == ("before" in arguments)
    paths = artifacts_of(client, run.info.run_id)
    assert len(paths) == len(set(paths))
    assert {"note.txt", "context/environment.yaml", "gradients/run.html", "gradients/history.parquet"} <= set(paths)
    assert not list((tmp_path / "mlflow-journal").iterdir())
