"""Trainings of two processes, which are one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.processes import ForkServer
from tests.support.servers import artifacts_of, steps_of, the_run

SCRIPT = """
import sys
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.support.tracked_training import Model, fit

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
    arguments: list[str], client: MlflowClient, fork_server: ForkServer, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    process = fork_server.start_script(script, *arguments, cwd=tmp_path, GLOO_SOCKET_IFNAME="lo")
    assert process.wait(180) == 0, process.said
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
