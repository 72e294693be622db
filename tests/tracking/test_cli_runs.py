"""``grad-callbacks alerts`` and ``grad-callbacks open``, on a store with real runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from mlflow import MlflowClient

from grad_callbacks import GradientGuard
from grad_callbacks.tracking import JournaledMLFlowLogger
from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.run_address import run_address
from tests.support.helpers import Poisoned, fit, mlp


def trained(store: str, name: str, factor: float, folder: Path, **options: Any) -> str:
    logger = JournaledMLFlowLogger("mine", run_name=name, tracking_uri=store, save_dir=str(folder), **options)
    fit(Poisoned(mlp(4, 8, 2), factors={15: factor}), GradientGuard(), logger=logger)
    run_id = str(logger.run_id)
    logger.close()
    return run_id


@pytest.fixture
def runs(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run without and two with an alert, in the store of the environment."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    pairs = [("calm", 1.0), ("bad", math.nan), ("bad too", math.nan)]
    return [trained(store, name, factor, tmp_path) for name, factor in pairs]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(arguments) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def test_the_alerts_of_all_runs(
    runs: list[str], client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(told(capsys, "alerts", "--json"))
    assert [(row["run"], row["run_id"], row["step"], row["kind"], row["severity"]) for row in rows] == [
        ("bad too", runs[2], 15, "nonfinite", "critical"),
        ("bad", runs[1], 15, "nonfinite", "critical"),
    ]
    assert {row["cause"] for row in rows} != {""}
    assert {row["outcome"] for row in rows} == {client.get_run(runs[1]).data.tags["grad.outcome"]}
    monkeypatch.setenv("COLUMNS", "120")
    table = told(capsys, "alerts")
    assert table.splitlines()[0].split() == ["run", "step", "kind", "severity", "cause", "outcome"]
    assert "calm" not in table
    assert len(table.splitlines()) == 4
    assert "there is no experiment 'ours' in this store; there are: 'mine'" in told(
        capsys, "alerts", "--experiment", "ours", status=2
    )


def test_of_a_table_that_cannot_be_read_the_tags_tell_the_first_alert(
    runs: list[str], client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.log_text(runs[1], "no table", "gradients/alerts.json")
    client.log_text(runs[2], '{"columns": ["step"], "data": [[1, 2]]}', "gradients/alerts.json")
    rows = json.loads(told(capsys, "alerts", "--json"))
    assert [(row["run"], row["step"], row["kind"], row["severity"]) for row in rows] == [
        ("bad too", 15, "nonfinite", ""),
        ("bad", 15, "nonfinite", ""),
    ]


def test_texts_of_a_store_do_not_reach_the_terminal_as_they_are(
    runs: list[str], client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_tag(runs[1], "mlflow.runName", "x\x1b[2J[bold]")
    client.set_tag(runs[1], "grad.outcome", "https://me:hush@host")
    table = told(capsys, "alerts")
    assert "\x1b" not in table
    assert "[bold]" in table
    assert "hush" not in table + told(capsys, "alerts", "--json")


def test_a_store_without_alerts_says_so(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "alerts") == "no run in this store has an alert\n"
    assert told(capsys, "alerts", "--json") == "[]\n"
    missing = f"sqlite:///{tmp_path}/none.db"
    assert "there is no such file" in told(capsys, "alerts", "--store", missing, status=2)
    assert not (tmp_path / "none.db").exists()


def test_open_prints_where_the_page_is(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    by_id = told(capsys, "open", runs[1])
    page = Path(unquote(urlparse(by_id.strip()).path))
    assert "<html" in page.read_text()
    assert runs[1] in page.parts, "the page itself, no copy"
    assert told(capsys, "open", runs[1][:12]) == told(capsys, "open", "bad") == by_id
    assert runs[2] in told(capsys, "open", "latest")


def test_open_says_what_there_is_instead(
    runs: list[str], client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no run 'good' in this store; the newest are: 'bad too', 'bad', 'calm'" in told(
        capsys, "open", "good", status=2
    )
    bare = client.create_run("0", run_name="bare").info.run_id
    assert f"run {bare} has no page gradients/run.html" in told(capsys, "open", "bare", status=2)
    assert "there is no run ''" in told(capsys, "open", "", status=2)


@pytest.mark.parametrize(("screen", "options", "opened"), [(True, [], 1), (True, ["--print"], 0), (False, [], 0)])
def test_a_browser_is_opened_only_where_there_is_a_screen(
    screen: bool, options: list[str], opened: int, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    monkeypatch.setattr("sys.platform", "linux")
    if screen:
        monkeypatch.setenv("DISPLAY", ":0")
    assert main(["open", "latest", *options]) == 0
    assert len(asked) == opened


def test_on_a_server_it_is_the_page_of_the_run_there_without_a_password(runs: list[str], client: MlflowClient) -> None:
    address = run_address(client, "http://me:hush@127.0.0.1:5000/", "bad")
    experiment = client.get_run(runs[1]).info.experiment_id
    assert address.endswith(f"127.0.0.1:5000/#/experiments/{experiment}/runs/{runs[1]}")
    assert "hush" not in address
