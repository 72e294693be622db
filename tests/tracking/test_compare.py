from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from rich.console import Console

from grad_callbacks.cli import main
from grad_callbacks.tracking import compare, comparison_table
from grad_callbacks.tracking.pictures import comparison


def add_run(
    client: MlflowClient,
    scenario: str,
    guard: str,
    accuracy: float | None,
    *,
    seed: int = 0,
    variant: str = "plain",
    status: str = "FINISHED",
    **tags: str,
) -> None:
    experiment = client.get_experiment_by_name("grad-callbacks")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("grad-callbacks")
    run_id = client.create_run(experiment_id).info.run_id
    params = {"scenario": scenario, "variant": variant, "guard.name": guard, "seed": str(seed)}
    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(f"grad.{name}", value) for name, value in tags.items()],
    )
    if accuracy is not None:
        client.log_metric(run_id, "val/accuracy", accuracy)
    client.set_terminated(run_id, status)


@pytest.fixture
def filled(client: MlflowClient) -> MlflowClient:
    add_run(client, "lr", "none", 0.1)
    add_run(client, "lr", "none", 0.2, seed=1)
    add_run(client, "lr", "clip_norm", 0.5)
    add_run(
        client,
        "lr",
        "clip_norm",
        0.9,
        verdict="exploding",
        outcome="repaired",
        remedies="ClipNorm",
        first_alert_step="7",
    )
    add_run(client, "lr", "full", 0.8, seed=1, verdict="healthy", outcome="healthy", remedies="none")
    add_run(client, "deep", "monitor", 0.3, verdict="vanishing", outcome="unrepaired", remedies="none")
    add_run(client, "deep", "monitor", 0.95, variant="batch_norm", outcome="healthy", verdict="healthy")
    add_run(client, "deep", "full", None, status="FAILED")
    return client


def test_each_run_is_compared_with_the_unguarded_one_of_its_scenario_and_seed(filled: MlflowClient) -> None:
    table = compare(filled).set_index(["scenario", "variant", "guard", "seed"])
    assert len(table) == 7, "a repeated run counts once"
    assert table.loc[("lr", "plain", "clip_norm", "0"), "accuracy"] == pytest.approx(0.9), "the latest one"
    assert table.loc[("lr", "plain", "clip_norm", "0"), "difference"] == pytest.approx(0.8)
    assert table.loc[("lr", "plain", "full", "1"), "difference"] == pytest.approx(0.6)
    assert table.loc[("deep", "batch_norm", "monitor", "0"), "difference"] == pytest.approx(0.65)
    assert math.isnan(table.loc[("deep", "plain", "full", "0"), "difference"])
    assert table.loc[("lr", "plain", "clip_norm", "0"), "first_alert_step"] == "7"


def test_the_table_fits_a_terminal(filled: MlflowClient) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(comparison_table(compare(filled)))
    lines = screen.getvalue().splitlines()
    [line] = [line for line in lines if "clip_norm" in line]
    for told in ("exploding", "7", "ClipNorm", "repaired", "0.900", "+0.800"):
        assert told in line
    assert any("failed" in line for line in lines)
    assert max(len(line) for line in lines) <= 80


def test_the_command_prints_and_writes(
    filled: MlflowClient, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, picture = tmp_path / "table.csv", tmp_path / "picture.png"
    assert main(["compare", "--store", store, "--csv", str(csv), "--picture", str(picture)]) == 0
    assert "clip_norm" in capsys.readouterr().out
    assert csv.read_text().splitlines()[0].startswith("scenario,variant,guard,seed")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_legend_names_every_outcome(filled: MlflowClient) -> None:
    [legend] = comparison(compare(filled)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["healthy", "repaired", "unrepaired", "not watched"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--experiment", "nope"], "there is no experiment 'nope' in this store; there are: "),
        (["compare", "--store", "sqlite:////no/such/folder/mlflow.db"], "cannot be used"),
        (["ui", "--store", "sqlite:////no/such/folder/mlflow.db"], "cannot be used"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    arguments: list[str], message: str, filled: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_experiment_without_runs_is_named(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.create_experiment("grad-callbacks")
    assert main(["compare"]) == 2
    assert "has no runs yet" in capsys.readouterr().err
