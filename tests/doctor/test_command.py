"""``grad-callbacks doctor``, on real modules and a real store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from grad_callbacks.cli import main
from tests.support.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
HOME = "tests.support.ill_modules"
ILL = [f"{HOME}.DeepNet", "--data", f"{HOME}.digits", "--arg", "activation=Sigmoid", "--arg", "depth=7"]
HEALTHY = [f"{HOME}.DeepNet", "--data", f"{HOME}.Digits", "--data-arg", "batch_size=32"]
QUICK = ["--steps", "120", "--folder", "found"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_progress_and_the_prescription(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *ILL, *QUICK, "--no-log"]) == 0
    printed, progress = capsys.readouterr()
    assert "vanishing gradients; likely cause: saturated activations" in printed
    assert "`nn.Sigmoid()` -> `nn.ReLU()` at net.1, and 5 more" in printed
    assert "Report: found" in printed
    assert [line.partition(" (")[0] for line in progress.splitlines()] == ["as it is", "trial 1 of 8, ReLU"]


def test_a_healthy_training_has_nothing_to_prescribe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *HEALTHY, *QUICK, "--no-log", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_healthy"]
    assert found["tried"] == []
    assert found["ill"]["verdict"] == "healthy"


def test_what_is_not_cured_has_a_status_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *ILL, "--steps", "8", "--trials", "1", "--folder", "found", "--no-log"]) == 1
    assert "Trials, the best first:" in capsys.readouterr().out


@pytest.mark.slow
def test_each_training_is_a_child_run_and_the_prescription_is_in_the_parent(client: MlflowClient, store: str) -> None:
    assert main(["doctor", *ILL, "--steps", "60", "--trials", "2", "--folder", "found"]) in (0, 1)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "doctor DeepNet"
    assert "What is wrong:" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["grad.cause"] == "saturated activations"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in children} == {"FINISHED"}
    assert "unchanged" in {run.info.run_name for run in children}
    assert {run.data.params["cure"] for run in children} == {run.info.run_name for run in children}
    assert all("grad/norm" in run.data.metrics for run in children)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to train: MODEL, an import path, or --config FILE"),
        (["DeepNet"], "'DeepNet' is no import path"),
        (["no.such.Net"], "cannot import the model 'no.such.Net': ModuleNotFoundError"),
        ([f"{HOME}.DepNet"], "has no 'DepNet'; did you mean 'DeepNet'?"),
        ([f"{HOME}.PlainNet"], "gives a PlainNet, which is no LightningModule"),
        ([f"{HOME}.DeepNet", "--arg", "dpth=3"], "unexpected keyword argument 'dpth' (arguments are given by --arg"),
        ([f"{HOME}.DeepNet", "--arg", "depth"], "--arg takes NAME=VALUE, got 'depth'"),
        ([*HEALTHY, "--trials", "0"], "trials must be a whole number of at least 1"),
        ([*HEALTHY, "--minutes", "-1"], "minutes must be a finite number above 0"),
        (["--config", "none.yaml"], "there is no file none.yaml"),
        ([f"{HOME}.Broken", "--data", f"{HOME}.digits"], "fails before its first step: KeyError: 'labels'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments, "--no-log"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("with_class_path", [True, False])
def test_a_configuration_of_lightning_cli(
    with_class_path: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"activation": "Sigmoid", "depth": 7}
    model: dict[str, Any] = {"class_path": f"{HOME}.DeepNet", "init_args": given} if with_class_path else given
    data: dict[str, Any] = {"class_path": f"{HOME}.Digits"} if with_class_path else {"batch_size": 32}
    trainer = {"max_epochs": 1000, "gradient_clip_val": 5.0, "logger": True, "callbacks": None}
    told = {"seed_everything": 7, "trainer": trainer, "model": model, "data": data, "ckpt_path": None}
    Path("config.yaml").write_text(yaml.safe_dump(told))
    classes = [] if with_class_path else [f"{HOME}.DeepNet", "--data", f"{HOME}.Digits"]
    assert main(["doctor", *classes, "--config", "config.yaml", *QUICK, "--no-log", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ill"]["cause"] == "saturated activations"
    assert found["ill"]["inspection"]["clips"] == 5.0
    assert not Path("lightning_logs").exists()


def test_a_configuration_that_lightning_cli_refuses_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(
        yaml.safe_dump({"model": {"class_path": f"{HOME}.DeepNet", "init_args": {"dpth": 3}}})
    )
    assert main(["doctor", "--config", "config.yaml", "--no-log"]) == 2
    assert "config.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(folder: Path) -> None:
    command = [sys.executable, "-m", "grad_callbacks.cli", "doctor", *ILL, "--folder", "found", "--no-log"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    options = {"cwd": folder, "env": environment, "text": True}
    process = subprocess.Popen([*command, "--steps", "600"], stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
    assert wait_until(lambda: bool(list(folder.glob("found/trial-*.json"))), 120)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped after 1 trainings; the same command with --folder found goes on" in said
    done = next(folder.glob("found/trial-*.json")).stat().st_mtime_ns
    again = subprocess.run([*command, "--steps", "600", "--trials", "1"], capture_output=True, check=False, **options)  # type: ignore[call-overload]
    assert "What is wrong:" in again.stdout
    assert min(path.stat().st_mtime_ns for path in folder.glob("found/trial-*.json")) == done
