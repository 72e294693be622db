"""A server that does not answer is asked once by each sync."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking import sync
from grad_callbacks.tracking.cli import main
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.journals import metrics, old_journal
from tests.support.processes import ROOT, without_a_store
from tests.support.servers import steps_of, the_run

JOURNALS = 68


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def test_many_journals_of_a_dead_server_cost_one_request(
    client: MlflowClient, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = FaultyProxy(port=9)
    proxy.decide = lambda *_: Fault(503, "down")
    folder = tmp_path / "journal"
    for number in range(JOURNALS):
        old_journal(folder, metrics(3), file=f"run{number:02}", experiment="e")
    started = time.monotonic()
    assert main(["sync", str(folder), "--uri", proxy.uri]) == 1
    assert time.monotonic() - started < 20
    assert proxy.asked == 1
    proxy.close()
    lines = capsys.readouterr().out.splitlines()
    assert sum("not all sent" in line for line in lines) == JOURNALS + 1
    assert sum("does not answer" in line for line in lines) == JOURNALS - 1
    assert lines[-1] == f"{JOURNALS} journals are not all sent"
    assert {run.state for run in sync(folder, store)} == {"sent"}


def test_a_run_that_cannot_be_sent_does_not_hold_up_the_others(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    old_journal(tmp_path / "journal", metrics(3), file="a", experiment="gone")
    list(sync(tmp_path / "journal", store))
    client.delete_run(the_run(client, "gone").info.run_id)
    old_journal(tmp_path / "journal", metrics(3), file="b", experiment="x\ud800")
    old_journal(tmp_path / "journal", metrics(3), file="c", experiment="good")
    with (tmp_path / "journal" / "a.jsonl").open("a") as file:
        file.write('{"m": {"late": 1.0}, "s": 0, "t": 1}\n')
    runs = {run.journal.stem: run for run in sync(tmp_path / "journal", store)}
    assert {name: run.state for name, run in runs.items()} == {"a": "pending", "b": "pending", "c": "sent"}
    assert "deleted" in runs["a"].reason
    assert steps_of(client, the_run(client, "good").info.run_id, "loss") == [0, 1, 2]


@pytest.mark.slow
def test_it_prints_line_by_line_while_it_goes_on(store: str, tmp_path: Path) -> None:
    for number in range(3):
        old_journal(tmp_path / "mlflow-journal", metrics(3), file=f"run{number}", experiment="e")
    command = [sys.executable, "-m", "grad_callbacks.tracking.cli", "sync"]
    environment = without_a_store() | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert ": " in first
        assert process.wait(120) == 0
