"""The Hydra application, on real data and a real store."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from omegaconf import DictConfig, OmegaConf

from experiments.run import run
from experiments.settings import OF_SCENARIOS, numbers, settings
from grad_callbacks.tracking import StoreError
from tests.support.processes import ForkServer, wait_until

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
QUICK = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false"]


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=["trainer.enable_progress_bar=false", *overrides])


# Have tests of their own: Muon takes matrices only, and GPT-2 a width that its heads divide.
ELSEWHERE = ("muon", "pretrain")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("group", ["activation", "init", "norm", "optimizer", "guard", "experiment"])
def test_every_option_of_every_group_trains(group: str) -> None:
    for option in options(group):
        if option in ELSEWHERE:
            continue
        residual = ["model=residual_mlp"] if option == "fixup" else []
        result = run(config(f"{group}={option}", *residual, "logger=none", "model.width=16", *QUICK))
        assert 0.0 <= result.accuracy <= 1.0, option


def test_the_groups_hold_what_they_promise() -> None:
    activations = ["elu", "gelu", "identity", "leaky_relu", "prelu", "relu", "selu", "sigmoid", "silu", "tanh"]
    assert options("activation") == activations
    inits = ["default", "fixup", "he", "large", "lsuv", "orthogonal", "small", "uniform", "xavier"]
    assert options("init") == inits
    assert options("norm") == ["batch", "group", "layer", "none", "rms"]
    assert options("guard") == [
        "adaptive_clip",
        "agc",
        "clip_norm",
        "clip_value",
        "full",
        "full_precision",
        "mask_undefined",
        "monitor",
        "none",
        "reduce_lr",
        "reinitialize",
        "rescale_inputs",
        "rollback",
        "skip_step",
        "standardize_inputs",
        "warmup",
    ]


def test_a_run_is_logged_with_its_resolved_config(client: MlflowClient, store: str) -> None:
    result = run(config("experiment=high_lr", "guard=clip_norm", "model.residual=true", *QUICK))
    logged = client.get_run(str(result.run_id))
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "high_lr/clip_norm/seed0"
    assert logged.data.params["scenario"] == "high_lr"
    assert logged.data.params["guard.name"] == "clip_norm"
    assert logged.data.params["model.depth"] == "6"
    assert logged.data.params["model.residual"] == "True"
    assert logged.data.metrics["val/accuracy"] == pytest.approx(result.accuracy)
    assert {"grad/norm", "train/loss", "val/loss"} <= set(logged.data.metrics)
    saved = yaml.safe_load(Path(download_artifacts(f"{logged.info.artifact_uri}/context/config.yaml")).read_text())
    assert saved["model"]["activation"]["_target_"] == "torch.nn.ReLU"
    assert saved["logger"]["tracking_uri"] == store


def test_an_unguarded_run_tells_where_it_comes_from_too(client: MlflowClient, store: str) -> None:
    result = run(config("guard=none", *QUICK))
    uri = client.get_run(str(result.run_id)).info.artifact_uri
    environment, saved = (
        yaml.safe_load(Path(download_artifacts(f"{uri}/context/{name}.yaml")).read_text())
        for name in ("environment", "config")
    )
    assert environment["torch"] == torch.__version__
    assert saved["guard"] == {"name": "none", "callback": None}


def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = (
        run(config("logger=none", "guard=monitor", f"seed={seed}", *QUICK)).monitor for seed in (0, 0, 1)
    )
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.history().equals(second.history())
    assert not first.history().equals(other.history())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.depth=-2", "model: .*depth must be a whole number of at least 1, got -2"),
        ("model.depth=abc", "model: .*depth must be a whole number of at least 1, got 'abc'"),
        ("model.residual=maybe", "residual must be true or false, got 'maybe'"),
        ("data.batch_size=0", "data: .*batch_size must be a whole number from 1 to 1437, got 0"),
        ("data.batch_size=100000", "batch_size must be a whole number from 1 to 1437"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("optimizer.lr=abc", "^optimizer.lr must be a number, got 'abc'"),
        ("task.loss_factor=abc", "^task.loss_factor must be a number, got 'abc'"),
        ("trainer.max_epochs=x", "trainer.max_epochs must be a whole number of at least 1, got 'x'"),
        ("trainer.accelerator=abacus", "trainer: .*abacus"),
        ("seed=abc", "seed must be a whole number"),
        ("+guard.callback.every_n_steps=0", "guard.callback: .*every_n_steps must be a whole number of at least 1"),
        ("+guard.callback.prescription={exploding:[ClipNrm]}", "unknown remedy 'ClipNrm'"),
    ],
)
def test_a_wrong_value_is_named_and_leaves_no_half_written_run(
    override: str, message: str, client: MlflowClient
) -> None:
    with pytest.raises(ValueError, match=message):
        run(config(override))
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+experment=high_lr", "there is no setting 'experment'; did you mean 'experiment'?"),
        ("+optimiser.lr=3", "there is no setting 'optimiser'; did you mean 'optimizer'?"),
        ("+zzz=3", "there is no setting 'zzz'; there are activation, .*seed"),
        ("+guard.every_n_steps=3", "there is no setting 'guard.every_n_steps'.*guard.callback.every_n_steps="),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(override: str, message: str, client: MlflowClient) -> None:
    with pytest.raises(ValueError, match=message):
        run(config(override))
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_every_scenario_uses_known_settings_and_numbers() -> None:
    for path in sorted((CONF / "experiment").rglob("*.yaml")):
        own = OmegaConf.load(path)
        unknown = set(map(str, own)) - {"defaults", "hydra", *settings(), *OF_SCENARIOS}
        assert not unknown, path
        for group in set(map(str, own)) & {folder.name for folder in CONF.iterdir()}:
            for name, value in own[group].items() if isinstance(own[group], DictConfig) else ():
                wrong = isinstance(value, str) and f"{group}.{name}" in numbers(group)
                assert not wrong, (path, name)


def test_a_run_says_how_it_went_and_where_its_report_is(store: str) -> None:
    result = run(config("guard=full", *QUICK))
    assert re.fullmatch(
        rf"quality 0\.\d+; verdict healthy, outcome healthy; report: MLflow run {result.run_id}, "
        rf"gradients/run.html, at {store}",
        str(result),
    )
    assert re.fullmatch(r"quality 0\.\d+; not logged", str(run(config("guard=none", "logger=none", *QUICK))))


def test_a_store_that_cannot_be_written_is_named(store: str) -> None:
    with pytest.raises(StoreError, match="there is no folder /no/such/folder"):
        run(config("logger.tracking_uri=sqlite:////no/such/folder/mlflow.db"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("activation=swish9", "Could not find 'activation/swish9'"),
        ("model.dpth=3", "Could not override 'model.dpth'"),
        ("model.depth=0", "model: depth must be a whole number of at least 1, got 0"),
    ],
)
def test_on_the_command_line_a_mistake_is_one_line(
    override: str, message: str, fork_server: ForkServer, tmp_path: Path
) -> None:
    process = fork_server.start_module("experiments.run", override, "logger=none", "hydra.run.dir=hydra", cwd=tmp_path)
    assert process.wait() == 2
    [line] = [line for line in process.said.splitlines() if line.strip()]
    assert message in line


def test_ctrl_c_leaves_a_killed_run_with_its_story(client: MlflowClient, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "experiments.run", "experiment=healthy", "trainer.max_epochs=10000"]
    arguments += ["guard=monitor", f"hydra.run.dir={tmp_path}/hydra", "trainer.enable_progress_bar=false"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    silent = subprocess.DEVNULL
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=silent, stderr=silent)
    assert wait_until(lambda: _steps_logged(client), 120)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    [logged] = _runs(client)
    assert logged.info.status == "KILLED"
    assert logged.data.tags["grad.verdict"] == "healthy"


def test_a_crash_leaves_a_failed_run(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("experiments.tasks.Classifier.training_step", crash)
    with pytest.raises(RuntimeError):
        run(config(*QUICK))
    [logged] = _runs(client)
    assert logged.info.status == "FAILED"
    assert "grad.verdict" not in logged.data.tags, "nothing was measured"


def _runs(client: MlflowClient) -> list[Any]:
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def _steps_logged(client: MlflowClient) -> bool:
    return any("grad/norm" in logged.data.metrics for logged in _runs(client))


@pytest.mark.parametrize("name", ["gradient_monitor", "gradient_guard"])
def test_a_users_own_app_can_compose_the_callbacks(name: str, tmp_path: Path) -> None:
    from hydra.utils import instantiate

    (tmp_path / "config.yaml").write_text("hydra:\n  searchpath: [pkg://grad_callbacks.conf]\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        cfg = compose("config", overrides=[f"+callbacks={name}", "callbacks.every_n_steps=3"])
    assert instantiate(cfg.callbacks).every_n_steps == 3
