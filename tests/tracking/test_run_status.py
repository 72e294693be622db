"""What status a run gets, however its training or its process ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from mlflow import MlflowClient
from mlflow.entities import Run

from grad_callbacks.tracking import JournaledMLFlowLogger
from grad_callbacks.tracking.ending import ENDED_TAG
from tests.support.processes import Child, ForkServer, wait_until
from tests.support.servers import steps_of, the_run
from tests.support.tracked_training import Model, fit


class TrialPruned(Exception):
    """As Optuna's, by its name."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("no memory"), "FAILED failed"),
        (KeyboardInterrupt(), "KILLED interrupted"),
        (SystemExit(1), "KILLED exited"),
        (SIGTERMException(), "KILLED preempted"),
        (TrialPruned(), "KILLED pruned"),
    ],
    ids=["exception", "Ctrl-C", "exit", "SIGTERM", "Optuna"],
)
def test_the_status_is_true_when_fit_is_interrupted(error: BaseException, status: str, client: MlflowClient) -> None:
    made = JournaledMLFlowLogger("plugin")
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((RuntimeError, SystemExit, TrialPruned)):
            fit(made, Model(error))
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    made.close()
    run = the_run(client, "plugin")
    assert f"{run.info.status} {run.data.tags[ENDED_TAG]}" == status
    assert steps_of(client, run.info.run_id, "loss") == [0, 1, 2]


class Pruning(Callback):
    """Ends a trial as Optuna's callback does."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            raise TrialPruned


def test_a_run_that_was_pruned_in_validation_and_is_continued_tells_how_it_ended_last(client: MlflowClient) -> None:
    made = JournaledMLFlowLogger("plugin")
    trainer = Trainer(
        max_steps=6,
        logger=made,
        callbacks=[Pruning()],
        limit_train_batches=3,
        limit_val_batches=1,
        enable_progress_bar=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    with pytest.raises(TrialPruned):
        trainer.fit(Model())
    made.close()
    run = the_run(client, "plugin")
    assert (run.info.status, run.data.tags[ENDED_TAG]) == ("KILLED", "pruned")
    again = JournaledMLFlowLogger("plugin", run_id=run.info.run_id)
    again.log_metrics({"loss": 1.0}, step=9)
    assert again.flush(30)
    assert ENDED_TAG not in client.get_run(run.info.run_id).data.tags
    again.finalize("success")
    again.close()
    run = the_run(client, "plugin")
    assert (run.info.status, run.data.tags[ENDED_TAG]) == ("FINISHED", "finished")


TRAINING = """
from grad_callbacks.tracking import JournaledMLFlowLogger
from grad_callbacks.tracking.ending import ENDED_TAG
from tests.support.tracked_training import fit
logger = JournaledMLFlowLogger("plugin")
"""
LONG = "print(logger.run_id, flush=True); fit(logger, steps=10**7)"


@pytest.mark.parametrize(
    ("then", "number", "status"),
    [
        ("logger.log_metrics({'a': 1.0}); raise RuntimeError('outside of fit')", None, "FAILED failed"),
        ("logger.log_metrics({'a': 1.0})", None, "FINISHED finished"),
        ("fit(logger); logger.log_metrics({'a': 1.0})", None, "FINISHED finished"),
        (LONG, signal.SIGTERM, "KILLED preempted"),
        (LONG, signal.SIGINT, "KILLED interrupted"),
    ],
    ids=["crash outside fit", "end without fit", "logs after fit", "SIGTERM", "Ctrl-C"],
)
def test_the_status_is_true_however_the_process_ends(
    then: str, number: int | None, status: str, client: MlflowClient, tmp_path: Path, fork_server: ForkServer
) -> None:
    process = fork_server.start(TRAINING + then, tmp_path)
    if number is not None:
        _wait_for_metrics(process, client)
        process.send(number)
    process.wait()
    run = the_run(client, "plugin")
    assert f"{run.info.status} {run.data.tags[ENDED_TAG]}" == status, process.said
    assert not list((tmp_path / "mlflow-journal").iterdir())


def _wait_for_metrics(process: Child, client: MlflowClient) -> str:
    assert wait_until(lambda: "\n" in process.said and bool(_last(process, client).data.metrics)), process.said
    return str(_last(process, client).info.run_id)


def _last(process: Child, client: MlflowClient) -> Run:
    return client.get_run(next(line for line in process.said.splitlines() if len(line) == 32))


def test_the_next_logger_marks_a_run_whose_process_was_killed_outright_and_no_other(
    client: MlflowClient, tmp_path: Path, fork_server: ForkServer
) -> None:
    killed, alive = fork_server.start(TRAINING + LONG, tmp_path), fork_server.start(TRAINING + LONG, tmp_path)
    try:
        killed_id, alive_id = _wait_for_metrics(killed, client), _wait_for_metrics(alive, client)
        killed.send(signal.SIGKILL)
        killed.wait()
        assert client.get_run(killed_id).info.status == "RUNNING"
        made = JournaledMLFlowLogger("another")
        made.log_metrics({"a": 1.0})
        made.finalize("success")
        made.close()
        assert client.get_run(killed_id).info.status == "KILLED"
        assert client.get_run(alive_id).info.status == "RUNNING"
    finally:
        alive.send(signal.SIGKILL)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_journal_that_is_to_be_kept_outlives_the_next_logger(keeps: bool, client: MlflowClient) -> None:
    made = JournaledMLFlowLogger("plugin", keep_journal=keeps)
    made.log_metrics({"loss": 1.0}, step=0)
    path = made.journal_path
    made.finalize("success")
    made.close()
    after = JournaledMLFlowLogger("plugin", keep_journal=True)
    after.log_metrics({"loss": 1.0}, step=0)
    after.flush(20)
    after.close()
    assert path is not None
    assert path.exists() == keeps
