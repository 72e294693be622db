"""Multiruns, as a user starts them."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.utils import JobReturn, JobStatus
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

from experiments.sweep import FAILED, NOTE, PARENT, ParentRun
from grad_callbacks.tracking import JournaledMLFlowLogger
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.ownership import signed
from tests.support.processes import Child, ForkServer, wait_until
from tests.support.servers import NO_SERVER

QUICK = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "guard=monitor", "model.width=8"]


def multirun(fork_server: ForkServer, cwd: Path, *overrides: str) -> Child:
    arguments = ["-m", *QUICK, *overrides, f"hydra.sweep.dir={cwd}/multirun"]
    return fork_server.start_module("experiments.run", *arguments, cwd=cwd, HOME=str(cwd))


def family(client: MlflowClient) -> tuple[Run, dict[str, Run]]:
    """The parent run and its children by name."""
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = {run.info.run_name: run for run in runs if run is not parents[0]}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} <= {parents[0].info.run_id}
    return parents[0], children


def compared(client: MlflowClient, parent: Run) -> pd.DataFrame:
    """The runs that the comparison in a parent run tells of, if its page is there too."""
    folder = Path(client.download_artifacts(parent.info.run_id, "comparison"))
    assert "Comparison" in (folder / "comparison.html").read_text()
    assert parent.data.tags["mlflow.note.content"].startswith("# Comparison")
    return pd.read_csv(folder / "runs.csv").sort_values("seed").reset_index(drop=True)


def test_a_sweep_is_a_parent_with_children_named_by_what_differs(
    client: MlflowClient, fork_server: ForkServer, tmp_path: Path
) -> None:
    process = multirun(fork_server, tmp_path, "activation=relu,tanh", "model.depth=2")
    assert process.wait(200) == 0, process.said
    parent, children = family(client)
    assert set(children) == {"activation=relu", "activation=tanh"}
    assert children["activation=tanh"].data.params["activation._target_"] == "torch.nn.Tanh"
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "activation=relu,tanh")
    assert "model.depth=2" in parent.data.tags["sweep.overrides"]
    assert set(compared(client, parent)["variant"]) == {"activation=relu", "activation=tanh"}
    assert not list((tmp_path / "mlflow-journal").iterdir())


def test_a_sweep_that_fails_or_is_stopped_says_so_and_is_continued_under_its_parent(
    client: MlflowClient, fork_server: ForkServer, tmp_path: Path
) -> None:
    process = multirun(fork_server, tmp_path, "activation=relu,tanh", "trainer.max_epochs=5000")
    assert wait_until(lambda: _has_metrics(client), 100), process.said
    process.send(signal.SIGINT)
    assert process.wait() != 0
    parent, children = family(client)
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in children.values()} == {"KILLED"}

    process = multirun(fork_server, tmp_path, "optimizer.lr=-1,0.01")
    assert process.wait(200) == 2
    assert "experiments.run: optimizer: Invalid learning rate: -1" in process.said
    again, children = family(client)
    assert again.info.run_id == parent.info.run_id
    assert again.info.status == "FAILED"
    assert children["optimizer.lr=0.01"].info.status == "FINISHED"
    assert set(compared(client, again)["status"]) == {"FINISHED", "KILLED"}
    assert "1 interrupted" in again.data.tags["mlflow.note.content"]


def test_processes_share_a_fresh_store_and_one_parent(fork_server: ForkServer, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = multirun(fork_server, tmp_path, "seed=0,1", "trainer=steps", "trainer.max_steps=5", *launcher)
    assert process.wait(200) == 0, process.said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    parent, children = family(client)
    assert set(children) == {"seed=0", "seed=1"}
    assert {run.info.status for run in [parent, *children.values()]} == {"FINISHED"}
    assert compared(client, parent)["seed"].tolist() == [0, 1]
    assert not list((tmp_path / "mlflow-journal").iterdir())


def test_the_end_of_a_sweep_sends_its_own_runs_and_leaves_those_of_other_servers(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    logger = {
        "_target_": "grad_callbacks.tracking.JournaledMLFlowLogger",
        "experiment_name": "sweep",
        "tracking_uri": store,
        "journal_dir": str(tmp_path / "journal"),
    }
    hydra = {"sweep": {"dir": str(tmp_path / "multirun")}, "overrides": {"task": ["seed=0,1"]}, "sweeper": {}}
    config = OmegaConf.create({"logger": logger, "hydra": hydra})
    parent = ParentRun()
    parent.on_multirun_start(config)
    tags = {PARENT: family(client)[0].info.run_id}
    theirs = left_behind(tmp_path / "journal", NO_SERVER, tags), left_behind(tmp_path / "journal", store, {})
    mine = left_behind(tmp_path / "journal", store, tags)
    parent.on_multirun_end(config)

    later = JournaledMLFlowLogger("sweep", tracking_uri=store, journal_dir=tmp_path / "journal")  # removes what is sent
    later.log_metrics({"later": 1.0})
    later.finalize()
    later.close()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(run.info.run_name for run in runs if "loss" in run.data.metrics) == [mine.stem]
    assert sorted((tmp_path / "journal").glob("*.jsonl")) == sorted(theirs)


def left_behind(folder: Path, uri: str, tags: dict[str, str]) -> Path:
    """The journal of a run, named like it, of which its server has seen nothing."""
    name = uuid.uuid4().hex
    header = {"id": name, "uri": uri, "experiment": "jobs", "name": name, "tags": tags, "start": 0}
    journal = Journal(folder / f"{name}.jsonl", signed(header))  # as the user's own process does
    journal.append({"m": {"loss": 1.0}, "s": 0, "t": 0})
    journal.append(status_entry("FINISHED"))
    journal.close()
    return journal.path


def _has_metrics(client: MlflowClient) -> bool:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return any("grad/norm" in run.data.metrics for run in client.search_runs(experiments))


class TrialPruned(Exception):
    """As Optuna's, by its name."""


@pytest.mark.parametrize(("error", "fails"), [(RuntimeError("x"), True), (TrialPruned(), False)])
def test_a_trial_that_was_pruned_is_no_failure_of_the_sweep(error: Exception, fails: bool, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text("{}")
    ended = JobReturn(status=JobStatus.FAILED)
    ended.return_value = error
    ParentRun().on_job_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}), ended)
    assert (tmp_path / FAILED).exists() == fails
