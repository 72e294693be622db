from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from grad_callbacks.tracking import StoreError, default_artifacts, default_store, prepare_store
from tests.support.processes import ForkServer
from tests.support.servers import steps_of, the_run


def test_the_default_store_is_an_absolute_sqlite_file_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_store() == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_artifacts() == f"file://{tmp_path}/mlartifacts"


def test_a_store_named_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert default_store() == "http://127.0.0.1:5000"
    assert default_artifacts() is None, "the server decides"


def test_processes_that_start_together_share_a_fresh_store(tmp_path: Path, fork_server: ForkServer) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = "from tests.support.tracked_training import staged; staged({!r}, {!r}, pause=-1, steps=10)"
    processes = [fork_server.start(code.format(f"experiment {i}", uri), tmp_path) for i in range(4)]
    for process in processes:
        process.wait(180)
        assert "ended normally" in process.said
    client = prepare_store(uri)
    for i in range(4):
        assert steps_of(client, the_run(client, f"experiment {i}").info.run_id, "loss") == list(range(10))


@pytest.mark.parametrize("path", ["no/such/folder/mlflow.db", "file/mlflow.db"])
def test_a_store_that_cannot_be_made_is_one_clear_error_and_leaves_nothing(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=r"mlflow.db cannot be used: .*Choose another with MLFLOW_TRACKING_URI"):
        prepare_store(f"sqlite:///{tmp_path / path}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("some notes of mine, not a database at all, and long enough to be read as one")
    with pytest.raises(StoreError, match="file is not a database"):
        prepare_store(f"sqlite:///{path}")
    assert path.read_text().startswith("some notes")


def test_a_locked_store_is_one_clear_error(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grad_callbacks.tracking.store.LOCK_TIMEOUT", 1)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match="locked"):
            prepare_store(store)
    finally:
        holder.close()
