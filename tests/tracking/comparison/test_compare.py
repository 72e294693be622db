from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from rich.console import Console

from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.comparison.compare import compare
from grad_callbacks.tracking.comparison.over_seeds import over_seeds
from grad_callbacks.tracking.comparison.picture import comparison_picture
from grad_callbacks.tracking.comparison.report import record_comparison, record_sweep
from grad_callbacks.tracking.comparison.significance import sign_flip_p
from grad_callbacks.tracking.comparison.tables import comparison_table, over_seeds_table


def add_run(
    client: MlflowClient,
    scenario: str,
    guard: str,
    accuracy: float | None,
    *,
    seed: int = 0,
    variant: str = "plain",
    status: str = "FINISHED",
    parent: str | None = None,
    metric: str = "val/accuracy",
    more: dict[str, str] | None = None,
    **tags: str,
) -> str:
    experiment = client.get_experiment_by_name("grad-callbacks")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("grad-callbacks")
    run_id = client.create_run(experiment_id).info.run_id
    params = {"scenario": scenario, "variant": variant, "guard.name": guard, "seed": str(seed)}
    params |= more or {}
    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(f"grad.{name}", value) for name, value in tags.items()]
        + ([RunTag("mlflow.parentRunId", parent)] if parent else []),
    )
    if accuracy is not None:
        client.log_metric(run_id, metric, accuracy)
    client.set_terminated(run_id, status)
    return run_id


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
    csv, picture, out = tmp_path / "table.csv", tmp_path / "picture.png", tmp_path / "out"
    arguments = ["compare", "grad-callbacks", "--store", store, "--csv", str(csv), "--picture", str(picture)]
    assert main([*arguments, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "clip_norm" in told
    assert "seeds" in told, "where seeds differ, the table is over seeds"
    assert main([*arguments, "--runs"]) == 0
    assert "alert" in capsys.readouterr().out
    names = {"runs.csv", "runs.parquet", "comparison.csv", "comparison.parquet", "comparison.html"}
    assert {path.name for path in out.iterdir()} == names
    written = pd.read_parquet(out / "comparison.parquet")
    pd.testing.assert_frame_equal(written, over_seeds(compare(filled)), check_dtype=False)
    assert csv.read_text().splitlines()[0].startswith("scenario,variant,guard,seed")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_legend_names_every_outcome(filled: MlflowClient) -> None:
    [legend] = comparison_picture(compare(filled)).legends
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


@pytest.fixture
def seeds(client: MlflowClient) -> str:
    """Six seeds of three guards in one sweep; returns its parent run."""
    experiment = client.create_experiment("grad-callbacks", artifact_location=str(Path.cwd() / "artifacts"))
    parent: str = client.create_run(experiment, run_name="guards").info.run_id
    for seed in range(6):
        add_run(client, "lr", "none", 0.1 + 0.01 * seed, seed=seed, parent=parent)
        gone = {"verdict": "exploding", "outcome": "unrepaired" if seed == 5 else "repaired", "remedies": "ClipNorm"}
        add_run(client, "lr", "full", 0.9 + 0.01 * seed, seed=seed, parent=parent, **gone)
        noise = 0.02 if seed % 2 else -0.02
        add_run(client, "lr", "clip_value", 0.1 + 0.01 * seed + noise, seed=seed, parent=parent)
    add_run(client, "lr", "full", None, seed=6, parent=parent, status="FAILED")
    client.set_terminated(parent)
    return parent


def test_seeds_are_averaged_and_paired_with_the_baseline(client: MlflowClient, seeds: str) -> None:
    table = over_seeds(compare(client)).set_index("guard")
    assert list(table.index) == ["none", "full", "clip_value"]
    full, value = table.loc["full"], table.loc["clip_value"]
    assert full["seeds"] == full["pairs"] == 6
    assert full["failed"] == 1
    assert full["mean"] == pytest.approx(0.925)
    assert full["spread"] == pytest.approx(pd.Series([0.9, 0.91, 0.92, 0.93, 0.94, 0.95]).std())
    assert full["gain"] == pytest.approx(0.8)
    assert full["gain_spread"] == pytest.approx(0, abs=1e-9), "the pairs differ by the same, whatever the seed"
    assert full["p"] == pytest.approx(2 / 2**6)
    assert full["repaired"] == pytest.approx(5 / 6)
    assert value["gain"] == pytest.approx(0, abs=1e-9)
    assert value["p"] == pytest.approx(1)
    assert table["is_baseline"].tolist() == [True, False, False]
    assert math.isnan(table.loc["none", "p"])


def test_the_table_over_seeds_fits_a_terminal(client: MlflowClient, seeds: str) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(over_seeds_table(over_seeds(compare(client))))
    [line] = [line for line in screen.getvalue().splitlines() if "full" in line]
    for told in ("6 (1 failed)", "exploding", "83%", "0.925 ± 0.019", "+0.800 ± 0.000", "0.031"):
        assert told in line
    assert max(len(line) for line in screen.getvalue().splitlines()) <= 80


def test_the_report_is_logged_into_the_sweep(
    client: MlflowClient, seeds: str, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--store", store]) == 0
    assert f"Logged into the sweep's run {seeds}" in capsys.readouterr().out
    assert "comparison/comparison.html" in {file.path for file in client.list_artifacts(seeds, "comparison")}
    note = client.get_run(seeds).data.tags["mlflow.note.content"]
    assert "full gains most over the baseline, +0.800" in note
    assert "| lr | full | 6 |" in note
    client.set_tag(seeds, "mlflow.note.content", "mine")
    record_sweep(client, "grad-callbacks", seeds)
    assert client.get_run(seeds).data.tags["mlflow.note.content"] == "mine", "a description of somebody else's stays"


def test_a_sweep_is_chosen_by_name_or_as_the_latest(client: MlflowClient, seeds: str) -> None:
    add_run(client, "other", "none", 0.5)
    assert set(compare(client)["scenario"]) == {"lr", "other"}
    assert record_comparison(client, compare(client)) is None, "some of these runs belong to no sweep"
    for wanted in ("guards", "latest", seeds):
        table = compare(client, sweep=wanted)
        assert set(table["scenario"]) == {"lr"}
        assert seeds not in set(table["run_id"])
    with pytest.raises(ValueError, match="no sweep 'x' in this experiment; there are: 'guards'"):
        compare(client, sweep="x")


def test_groups_and_baselines_of_ones_own(client: MlflowClient) -> None:
    for rate, guarded, unguarded in (("0.1", 0.9, 0.2), ("0.01", 0.8, 0.7)):
        add_run(client, "lr", "full", guarded, more={"optimizer.lr": rate})
        add_run(client, "lr", "none", unguarded, more={"optimizer.lr": rate})
    within = over_seeds(compare(client, group=["optimizer.lr"])).set_index(["variant", "guard"])["gain"]
    assert within["lr=0.1", "full"] == pytest.approx(0.7), "the unguarded run of the same variant"
    assert within["lr=0.01", "full"] == pytest.approx(0.1)
    chosen = {"optimizer.lr": "0.01", "guard.name": "none"}
    table = over_seeds(compare(client, group=["optimizer.lr"], baseline=chosen)).set_index(["variant", "guard"])
    assert table.loc[("lr=0.1", "full"), "gain"] == pytest.approx(0.2)
    assert main(["compare", "--group", "optimizer.lr", "--baseline", "optimizer.lr=0.01", "guard.name=none"]) == 0
    assert main(["compare", "--baseline", "nonsense"]) == 2


def test_of_a_loss_less_is_better(client: MlflowClient) -> None:
    add_run(client, "lr", "none", 2.0, metric="val/loss")
    add_run(client, "lr", "full", 0.5, metric="val/loss")
    table = compare(client)
    assert table.attrs["metric"] == "val/loss"
    assert table.set_index("guard").loc["full", "difference"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0] * 5, math.nan),
        ([1.0] * 6, 2 / 64),
        ([1.0] * 8 + [math.nan], 2 / 256),
        ([1.0, -1.0] * 4, 1.0),
        ([0.0] * 7, 1.0),
        ([3, 1, 4, 1, 5, 9, -2], 10 / 128),  # flipped may be: none, a 1, both, or the 2; and the mirror images
    ],
)
def test_the_sign_flip_test_counts(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == pytest.approx(p, nan_ok=True)


def test_many_pairs_are_judged_by_chance_flips() -> None:
    rng = np.random.default_rng(1)
    assert sign_flip_p(rng.normal(1.0, 1.0, 40).tolist()) < 1e-4
    same = [sign_flip_p(rng.normal(0.0, 1.0, 20).tolist()) for _ in range(20)]
    assert sum(p < 0.05 for p in same) <= 4


def test_what_a_sweep_has_swept_tells_its_runs_apart(client: MlflowClient) -> None:
    parent = add_run(client, "all", "", None)
    client.set_tag(parent, "sweep.swept", "sweep.activation")
    for activation, accuracy in (("relu", 0.9), ("tanh", 0.7)):
        run_id = add_run(client, "custom", "monitor", accuracy, parent=parent)
        client.set_tag(run_id, "sweep.activation", activation)
    table = compare(client, sweep=parent)
    assert set(table["variant"]) == {"activation=relu", "activation=tanh"}
    assert not table["is_baseline"].any(), "nothing is compared with them"
    assert table["difference"].isna().all()


def test_a_sweep_of_which_nothing_has_run_gets_no_comparison(client: MlflowClient) -> None:
    parent = add_run(client, "all", "", None)
    record_sweep(client, "grad-callbacks", parent)
    assert not client.list_artifacts(parent)
