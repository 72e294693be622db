from __future__ import annotations

import copy
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.support.servers import NO_SERVER, artifacts_of, steps_of, the_run
from tests.support.tracked_training import STEPS, Model, fit


def logger(experiment: str = "plugin", **arguments: Any) -> JournaledMLFlowLogger:
    return JournaledMLFlowLogger(experiment, **arguments)


def test_it_takes_the_place_of_lightnings(client: MlflowClient, tmp_path: Path) -> None:
    made = logger(run_name="first", tags={"team": "blue"}, prefix="my")
    assert isinstance(made, MLFlowLogger)
    fit(made)
    run = client.get_run(str(made.run_id))
    assert (run.info.status, run.info.run_name, run.data.tags["team"]) == ("FINISHED", "first", "blue")
    assert run.data.params["lr"] == "0.1"
    assert steps_of(client, run.info.run_id, "my-loss") == list(range(STEPS))
    assert (made.name, made.version) == (run.info.experiment_id, run.info.run_id)
    assert made.journal_path is not None
    assert made.journal_path.exists()
    made.close()
    assert not list((tmp_path / "mlflow-journal").iterdir()), "all is on the server"


def test_the_gradients_report_is_written_through_it(client: MlflowClient) -> None:
    made = logger()
    fit(made, None, GradientMonitor())
    made.close()
    run = the_run(client, "plugin")
    assert run.data.tags["grad.verdict"] == "healthy"
    assert "healthy" in run.data.tags["mlflow.note.content"]
    assert "gradients/history.parquet" in artifacts_of(client, run.info.run_id)
    assert steps_of(client, run.info.run_id, "grad/norm") == list(range(STEPS))


def test_everything_that_a_client_writes_arrives(client: MlflowClient, tmp_path: Path) -> None:
    made = logger()
    to, run_id = made.experiment, str(made.run_id)
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "a.txt").write_text("a")
    (tmp_path / "tree" / "below" / "b.txt").write_text("b")
    to.log_artifact(run_id, tmp_path / "tree" / "a.txt")
    to.log_artifact(run_id, str(tmp_path / "tree"), "as")
    to.log_artifacts(run_id, str(tmp_path / "tree"), "in/it")
    to.log_artifact(run_id, tmp_path / "is not there")
    to.log_text(run_id, "text", "text.txt")
    to.log_dict(run_id, {"a": 1}, "plain.json")
    figure = Figure()
    figure.add_subplot().plot([0, 1])
    to.log_figure(run_id, figure, "figure.png")
    to.log_image(run_id, np.zeros((4, 4, 3), dtype=np.uint8), key="image", step=3)
    to.log_image(run_id, np.zeros((4, 4, 3), dtype=np.uint8), key="image", step=4, synchronous=False)
    to.log_table(run_id, pd.DataFrame({"a": [1, 2]}), "tables/t.json")
    to.log_table(run_id, {"a": [3]}, "tables/t.json")
    to.log_metric(run_id, "single", 1.5, step=7, timestamp=1234)
    to.log_batch(run_id, [Metric("many", i, 5, i) for i in range(2500)], [Param("p", 1)], [RunTag("t", "x")])
    to.log_param(run_id, "one", "two")
    to.set_tag(run_id, "gone", "soon")
    to.delete_tag(run_id, "gone")
    to.update_run(run_id, name="renamed")
    to.log_inputs(run_id, [DatasetInput(Dataset("digits", "digest", "local", "{}"))])
    made.finalize("success")

    run = client.get_run(run_id)
    paths = artifacts_of(client, run_id)
    assert {"a.txt", "as/tree/a.txt", "as/tree/below/b.txt", "in/it/a.txt", "in/it/below/b.txt"} <= set(paths)
    assert {"text.txt", "plain.json", "figure.png", "tables/t.json"} <= set(paths)
    assert sum("image+step" in path for path in paths) == 4
    assert client.load_table(run.info.experiment_id, "tables/t.json", [run_id])["a"].tolist() == [1, 2, 3]
    [single] = client.get_metric_history(run_id, "single")
    assert (single.value, single.step, single.timestamp) == (1.5, 7, 1234)
    assert steps_of(client, run_id, "many") == list(range(2500))
    assert (run.data.params["p"], run.data.params["one"], run.data.tags["t"]) == ("1", "two", "x")
    assert "gone" not in run.data.tags
    assert run.info.run_name == "renamed"
    assert run.inputs.dataset_inputs[0].dataset.name == "digits"
    assert to.get_run(run_id).info.run_id == run_id, "reading goes to the server"


def test_nothing_that_mlflow_refuses_is_lost_or_raised(client: MlflowClient) -> None:
    made = logger()
    made.log_metrics({"acc@5(top)": 1.0, "a//b": 2.0, "x" * 400: 3.0, "inf": float("inf"), "nan": float("nan")}, step=2)
    made.log_metrics({"text": "no number", "good": 4.0}, step=3)  # type: ignore[dict-item]
    made.log_hyperparams({"prompt": "y" * 7000, "lr": 0.1, "bad(name)": 1, "none": None})
    made.log_hyperparams({"lr": 0.01})
    made.log_hyperparams({f"many{i}": i for i in range(250)})
    made.experiment.log_metric("no such run", "loss", 1.0)
    made.finalize("success")
    run = client.get_run(str(made.run_id))
    assert {"inf", "nan", "good"} <= set(run.data.metrics)
    for start in ("acc_5_top-", "a/b-", "xxx"):
        assert any(name.startswith(start) for name in run.data.metrics)
    assert len(run.data.params["prompt"]) == 6000
    whole = download_artifacts(run_id=run.info.run_id, artifact_path="params/prompt.txt")
    assert Path(whole).read_text() == "y" * 7000
    assert (run.data.params["lr"], run.data.params["lr.changed"]) == ("0.1", "0.01")
    assert len(run.data.params) == 4 + 1 + 250
    assert run.info.status == "FINISHED"


def test_a_run_is_resumed_under_its_id_though_a_parameter_has_changed(client: MlflowClient) -> None:
    first = logger()
    fit(first)
    first.experiment.log_table(str(first.run_id), {"a": [1]}, "t.json")
    first.close()
    second = logger(run_id=str(first._run_id))
    second.log_hyperparams({"lr": 0.5})
    for step in range(STEPS, 2 * STEPS):
        second.log_metrics({"loss": 1.0}, step=step)
    assert second.flush(30)
    assert client.get_run(str(second.run_id)).info.status == "RUNNING"
    second.experiment.log_table(str(second.run_id), {"a": [2]}, "t.json")
    second.finalize("success")
    run = the_run(client, "plugin")
    assert run.info.status == "FINISHED"
    assert (run.data.params["lr"], run.data.params["lr.changed"]) == ("0.1", "0.5")
    assert steps_of(client, run.info.run_id, "loss") == list(range(2 * STEPS))
    assert client.load_table(run.info.experiment_id, "t.json", [run.info.run_id])["a"].tolist() == [1, 2]


def test_a_closed_logger_opens_again(client: MlflowClient) -> None:
    made = logger()
    fit(made)
    made.close()
    made.log_metrics({"test": 1.0})
    made.finalize("success")
    made.close()
    run = the_run(client, "plugin")
    assert (run.info.status, run.data.metrics["test"]) == ("FINISHED", 1.0)


def test_where_a_run_comes_from_is_written_without_a_callback(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    made = logger()
    fit(made)
    made.close()
    run = the_run(client, "plugin")
    assert artifacts_of(client, run.info.run_id) == ["context/environment.yaml"]
    assert made.environment["torch"] == torch.__version__
    assert "system/cpu_utilization_percentage" in run.data.metrics


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", [[], [GradientMonitor()]], ids=["alone", "with a monitor"])
def test_system_metrics_come_in_every_fit(
    callbacks: list[Callback], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(Model):
        running: tuple[int, ...] = ()

        def on_train_batch_end(self, *_: Any) -> None:
            self.running += (sum(thread.name == "grad-callbacks-system" for thread in threading.enumerate()),)

    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1000")  # no fit is so slow: the last sample only
    made, model = logger(), Watched()
    made.log_metrics({"before": 1.0})
    made.finalize("success")  # as `trainer.validate` does
    fit(made, model, *callbacks)
    fit(made, model, *callbacks)
    made.log_metrics({"after": 1.0})
    assert not any(thread.name == "grad-callbacks-system" for thread in threading.enumerate())
    made.close()
    fit(made, model, *callbacks)
    made.close()
    assert set(model.running) == {1}
    assert len(model.running) == 3 * STEPS
    run = the_run(client, "plugin")
    assert steps_of(client, run.info.run_id, "system/cpu_utilization_percentage") == [0, 1, 2, 3]
    assert artifacts_of(client, run.info.run_id).count("context/environment.yaml") == 1


def test_a_copy_in_another_process_logs_into_the_same_run(client: MlflowClient) -> None:
    made = logger()
    made.log_metrics({"a": 1.0})
    other = copy.deepcopy(made)
    other.log_metrics({"b": 2.0})
    assert other.journal_path != made.journal_path
    assert other.run_id == made.run_id
    other.close()
    made.finalize("success")
    assert the_run(client, "plugin").data.metrics == {"a": 1.0, "b": 2.0}


def test_without_a_server_a_training_goes_on_and_its_logger_answers(tmp_path: Path) -> None:
    made = logger(tracking_uri=NO_SERVER, save_dir=str(tmp_path))
    started = time.monotonic()
    fit(made, None, GradientMonitor())
    made.close()
    assert time.monotonic() - started < 60, "MLflow itself would try again for minutes"
    assert made.name == "plugin"
    assert made.version
    assert len(list((tmp_path / "mlflow-journal").glob("*.jsonl"))) == 1


def test_only_rank_zero_writes(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    made = logger()
    made.log_metrics({"a": 1.0})
    made.log_hyperparams({"a": 1})
    made.experiment.log_text("run", "text", "file.txt")
    made.finalize("success")
    made.close()
    assert made.run_id is None
    assert not (tmp_path / "mlflow-journal").exists()


def test_no_secret_is_written_anywhere_in_clear(client: MlflowClient, tmp_path: Path) -> None:
    made = logger(tags={"auth_token": "hush"}, keep_journal=True)
    fit(made)
    made.log_hyperparams({"db": {"password": "hush", "url": "postgresql://me:hush@host/db"}, "use_cls_token": True})
    made.experiment.log_dict(str(made.run_id), {"client_secret": "hush"}, "config.yaml")
    made.experiment.set_tag(str(made.run_id), "source", "https://me:hush@host/repo.git")
    made.close()
    run = the_run(client, "plugin")
    assert run.data.params["db/url"] == "postgresql://***@host/db"
    assert run.data.params["use_cls_token"] == "True"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".jsonl" for file in files)
    assert [file.name for file in files if b"hush" in file.read_bytes()] == []


def test_the_other_lightning_takes_it_too(client: MlflowClient) -> None:
    pl = pytest.importorskip("pytorch_lightning")
    from pytorch_lightning.demos.boring_classes import BoringModel as OtherModel

    made = logger()
    trainer = pl.Trainer(
        max_steps=3, logger=made, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu"
    )
    trainer.fit(OtherModel())
    made.close()
    assert the_run(client, "plugin").info.status == "FINISHED"


def test_checkpoints_are_logged_as_lightning_does(client: MlflowClient, tmp_path: Path) -> None:
    made = logger(log_model=True)
    trainer = Trainer(
        max_steps=2, logger=made, default_root_dir=tmp_path, enable_progress_bar=False, limit_val_batches=0
    )
    trainer.fit(Model())
    made.close()
    paths = artifacts_of(client, the_run(client, "plugin").info.run_id)
    assert any(path.endswith(".ckpt") for path in paths)
    assert any(path.endswith("aliases.txt") for path in paths)


def test_however_fast_it_logs_the_requests_are_few(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Any = (), *others: Any, **named: Any) -> None:
        sizes.append(len(metrics))
        original(self, run_id, metrics, *others, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    made = logger()
    started, step = time.monotonic(), 0
    while time.monotonic() - started < 2.5:
        made.log_metrics({"loss": 1.0}, step=step)
        step += 1
        time.sleep(0.002)  # the length of a training step
    made.close()
    assert sum(sizes) == step
    assert len(sizes) <= 6


def test_logging_costs_no_more_than_appending_a_line(store: str) -> None:
    made = logger()
    made.log_metrics({"a": 0.0})
    values = {f"m{i}": torch.rand(()).item() for i in range(10)}
    started = time.thread_time()
    for step in range(500):
        made.log_metrics(values, step=step)
    assert (time.thread_time() - started) / 500 < 3e-3
    made.close()
