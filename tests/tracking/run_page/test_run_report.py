"""What an MLflow run holds after a training, on a real store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from omegaconf import OmegaConf

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor, NonFinite
from grad_callbacks.tracking.context import cli_config, environment
from tests.support.helpers import Poisoned, Regression, batches, fit, mlp, trainer


def logged(
    client: MlflowClient, store: str, tmp_path: Path, *callbacks: Any, module: Any = None, **options: Any
) -> Run:
    """Train with Lightning's own MLflow logger and return the run."""
    logger = MLFlowLogger("plugin", tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri())
    module = module or Poisoned(mlp(4, 8, 8, 2), factors={5: 1e3, 20: 1e3})
    with contextlib.suppress(RuntimeError):
        fit(module, *callbacks, logger=logger, log_every_n_steps=4, **options)
    return client.get_run(logger.run_id)


def artifact(client: MlflowClient, run: Run, name: str) -> Path:
    uri = client.get_run(run.info.run_id).info.artifact_uri
    return Path(download_artifacts(f"{uri}/gradients/{name}"))


def table(path: Path) -> pd.DataFrame:
    content = json.loads(path.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_a_guarded_run_is_reported(client: MlflowClient, store: str, tmp_path: Path) -> None:
    guard = GradientGuard({"exploding": [ClipNorm(0.1)]})
    run = logged(client, store, tmp_path, guard)
    tags = run.data.tags
    assert tags["grad.verdict"] == "exploding"
    assert tags["grad.outcome"] == guard.outcome
    assert tags["grad.remedies"] == "ClipNorm"
    assert tags["grad.first_alert_step"] == "20"
    assert tags["grad.cause"] == guard.alerts[0].cause
    assert tags["grad.layers"].startswith(guard.alerts[0].layers[0])
    assert tags["mlflow.note.content"] == "###" + guard.report()
    assert guard.report().count("- **") >= 5

    norms = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "grad/norm")}
    clipped = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "grad/norm_clipped")}
    assert sorted(norms) == [0, 3, 7, 11, 15, 19, 20, 23, 27, 31]
    assert norms[20] > 100
    assert clipped[20] == pytest.approx(0.1)

    alerts = table(artifact(client, run, "alerts.json"))
    assert alerts["kind"].tolist() == ["exploding"]
    assert "ratio=" in alerts["evidence"][0]
    interventions = table(artifact(client, run, "interventions.json"))
    assert interventions[["step", "remedy"]].to_numpy().tolist() == [[20, "ClipNorm"]]
    pd.testing.assert_frame_equal(pd.read_parquet(artifact(client, run, "history.parquet")), guard.history())
    steps = pd.read_parquet(artifact(client, run, "steps.parquet"))
    assert steps["step"].tolist() == list(range(32))
    assert steps.loc[20, ["norm_clipped", "lr_effective"]].tolist() == pytest.approx([0.1, 0.01])
    assert np.isfinite(steps["loss"]).all()
    for picture in ("heatmap", "profile", "course"):
        assert artifact(client, run, f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    page = artifact(client, run, "run.html").read_text()
    assert "Exploding gradients" in page
    images = client.list_artifacts(run.info.run_id, "images")
    assert sum(image.path.endswith(".png") for image in images) == 1, "the histogram of step 0"
    assert artifact(client, run, "report.md").read_text() == guard.report()
    assert run.info.status == "FINISHED"


def test_a_healthy_run_says_so(client: MlflowClient, store: str, tmp_path: Path) -> None:
    run = logged(client, store, tmp_path, GradientMonitor(), module=Regression(mlp(4, 2)))
    assert run.data.tags["grad.verdict"] == run.data.tags["grad.outcome"] == "healthy"
    assert run.data.tags["grad.remedies"] == "none"
    assert "grad.cause" not in run.data.tags
    assert table(artifact(client, run, "alerts.json")).empty


def test_a_crashed_run_is_reported_too(client: MlflowClient, store: str, tmp_path: Path) -> None:
    class Fails(Poisoned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 25:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    run = logged(client, store, tmp_path, GradientGuard(), module=Fails(mlp(4, 8, 8, 2), factors={20: math.nan}))
    assert run.data.tags["grad.verdict"] == "nonfinite"
    assert artifact(client, run, "history.parquet").exists()
    assert run.info.status == "FAILED"


def test_non_finite_values_do_not_enter_the_charts(client: MlflowClient, store: str, tmp_path: Path) -> None:
    factors = dict.fromkeys(range(20, 32), math.nan)
    run = logged(client, store, tmp_path, GradientMonitor(), module=Poisoned(mlp(4, 8, 2), factors=factors))
    for name in ("norm", "norm_clipped", "clip_coef", "decay_per_layer"):
        values = [m.value for m in client.get_metric_history(run.info.run_id, f"grad/{name}")]
        assert all(abs(value) < 1e6 for value in values), name
    assert run.data.metrics["grad/nonfinite_steps"] == 12


def test_a_store_that_fails_at_the_end_costs_a_warning(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MlflowClient, "log_table", refuse)
    with pytest.warns(UserWarning, match="could not be written to MLflow run .*: disk full"):
        run = logged(client, store, tmp_path, GradientGuard())
    assert run.info.status == "FINISHED"


def test_a_run_without_mlflow_takes_no_histograms(tmp_path: Path) -> None:
    monitor = GradientMonitor()
    fit(Poisoned(mlp(4, 8, 2), factors={}), monitor)
    assert monitor.histograms.to_host() == []
    assert len(monitor.step_series.to_frame()) == 32


@pytest.mark.slow
def test_a_resumed_run_shows_all_its_steps(client: MlflowClient, store: str, tmp_path: Path) -> None:
    whole, first, second = GradientMonitor(), GradientMonitor(), GradientMonitor()
    logger = MLFlowLogger("plugin", tracking_uri=store, artifact_location=(tmp_path / "artifacts").as_uri())
    torch.manual_seed(0)
    fit(Regression(mlp(4, 8, 2)), whole, logger=logger, max_epochs=2)
    torch.manual_seed(0)
    stopped = fit(Regression(mlp(4, 8, 2)), first, logger=logger)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    resumed = trainer(second, logger=logger, max_epochs=2)
    resumed.fit(Regression(mlp(4, 8, 2)), batches(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for monitor in (whole, second):
        assert monitor.step_series.to_frame()["step"].tolist() == list(range(64))
    assert [taken.step for taken in second.histograms.to_host()] == [0, 50]


def test_a_notebook_or_script_outside_a_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert "git commit" not in environment()
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", *arguments], check=True)
    found = environment()
    assert len(found["git commit"]) == 40
    assert found["git, uncommitted changes"] == "no"


def test_the_environment_is_there_from_the_start(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "logger.api_key=SECRET", "lr=0.1"])

    class Dies(Poisoned):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("at once")

    run = logged(client, store, tmp_path, GradientMonitor(), module=Dies(mlp(4, 2), factors={}))
    uri = client.get_run(run.info.run_id).info.artifact_uri
    written = yaml.safe_load(Path(download_artifacts(f"{uri}/context/environment.yaml")).read_text())
    assert written["torch"] == torch.__version__
    assert written["command"] == "train.py logger.api_key=*** lr=0.1"


def test_the_cli_config_a_hydra_job_is_an_artifact_without_its_secrets(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    OmegaConf.register_new_resolver("half", lambda value: value / 2, replace=True)
    overrides = ["note=https://me:SECRET@host/x", f"+hydra.runtime.output_dir={tmp_path / 'out'}"]
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        job = compose("config", overrides=overrides, return_hydra_config=True)
    (tmp_path / "out" / ".hydra").mkdir(parents=True)  # what @hydra.main does before it calls the function
    own = {key: value for key, value in OmegaConf.to_container(job).items() if key != "hydra"}
    OmegaConf.save(own, tmp_path / "out" / ".hydra" / "config.yaml")
    monkeypatch.setattr(HydraConfig.instance(), "cfg", job)

    run = logged(client, store, tmp_path, GradientMonitor())
    config = yaml.safe_load(Path(download_artifacts(f"{run.info.artifact_uri}/context/config.yaml")).read_text())
    assert config == {
        "lr": 0.01,
        "half": 0.005,
        "api_key": "***",
        "model": {"use_cls_token": True, "max_tokens": 128, "pad_token": "[PAD]"},
        "note": "https://***@host/x",
    }


def test_the_config_of_a_command_line_is_an_artifact_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guard = {"class_path": "grad_callbacks.GradientGuard", "init_args": {"every_n_steps": 3}}
    arguments = {"trainer": {"logger": False, "accelerator": "cpu", "callbacks": [guard]}}
    cli = LightningCLI(BoringModel, run=False, args=arguments)
    config = cli_config(cli.trainer)
    assert config is not None
    assert config["trainer"]["callbacks"][0]["init_args"]["every_n_steps"] == 3
    assert cli_config(trainer()) is None


CONFIG = """
lr: 0.01
half: ${half:${lr}}
api_key: SECRET
model: {use_cls_token: true, max_tokens: 128, pad_token: "[PAD]"}
note: none
"""


@pytest.mark.slow
def test_system_metrics_come_if_asked_for(
    client: MlflowClient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil")
    plain = logged(client, store, tmp_path, GradientMonitor())
    assert not any(name.startswith("system/") for name in plain.data.metrics)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    run = logged(client, store, tmp_path, GradientMonitor())
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(run.data.metrics)
    assert not [thread for thread in threading.enumerate() if thread.name == "grad-callbacks-system"]


def test_what_a_run_says_holds_no_secret(client: MlflowClient, store: str, tmp_path: Path) -> None:
    class Tells(NonFinite):
        def judge(self, reading: Any) -> Any:
            alert = super().judge(reading)
            return alert and dataclasses.replace(alert, cause="https://me:SECRET@host", advice="token=SECRET")

    monitor = GradientMonitor(rules=[Tells()])
    run = logged(client, store, tmp_path, monitor, module=Poisoned(mlp(4, 8, 2), factors={20: math.nan}))
    assert "SECRET" in monitor.report()
    assert "SECRET" not in repr(run.data.tags)
    folder = Path(download_artifacts(f"{run.info.artifact_uri}/gradients"))
    for file in folder.iterdir():
        assert b"SECRET" not in file.read_bytes(), file.name
