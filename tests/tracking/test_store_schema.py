"""A store that another MLflow has made."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision, create_sqlalchemy_engine_with_retry
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from grad_callbacks.tracking import JournaledMLFlowLogger, StoreError, prepare_store
from grad_callbacks.tracking.cli import main
from grad_callbacks.tracking.store_schema import _installed, _known, check_database, is_database

OLD = "3500859a5d39"  # of spring 2023


def revision(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.fixture
def old_store(tmp_path: Path) -> str:
    """Made by MLflow's own migrations up to an older one, with an experiment in it."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    engine = create_sqlalchemy_engine_with_retry(uri)
    InitialBase.metadata.create_all(engine)
    command.upgrade(_get_alembic_config(uri), OLD)
    engine.dispose()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("INSERT INTO experiments (name, lifecycle_stage) VALUES ('kept', 'active')")
    return uri


def test_what_is_read_from_the_migrations_is_what_alembic_says() -> None:
    assert _installed()[1] == _get_latest_schema_revision()
    assert {OLD, _installed()[1]} < _known()


def test_an_older_store_is_copied_before_it_is_changed_and_that_is_said(
    old_store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        client = prepare_store(old_store)
        prepare_store(old_store)
    assert client.get_experiment_by_name("kept") is not None
    assert revision(tmp_path / "mlflow.db") == _installed()[1]
    copy = tmp_path / f"mlflow.db.{OLD}.bak"
    assert revision(copy) == OLD
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("kept",)]
    [told] = [record.getMessage() for record in caplog.records if "older MLflow" in record.getMessage()]
    for part in (OLD, *_installed(), str(copy), "one way"):
        assert part in told


def test_a_store_is_not_changed_if_it_cannot_be_copied(old_store: str, tmp_path: Path) -> None:
    (tmp_path / f"mlflow.db.{OLD}.bak" / "in the way").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be copied"):
        prepare_store(old_store)
    assert revision(tmp_path / "mlflow.db") == OLD
    assert not list(tmp_path.glob("*.part"))


def test_a_newer_store_is_one_line_that_names_both(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_store(store)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert main(["compare", "--store", store]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("newer MLflow (schema ffffffffffff)", *_installed()):
        assert part in said


def test_a_training_goes_on_with_a_newer_store(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare_store(store)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    made = JournaledMLFlowLogger("plugin")
    made.log_metrics({"loss": 1.0})
    made.finalize("success")
    made.close()
    assert "newer MLflow" in caplog.text
    assert list((tmp_path / "mlflow-journal").glob("*.jsonl")), "kept for later"


def test_a_shared_database_of_an_older_mlflow_is_left_as_it_is(old_store: str, tmp_path: Path) -> None:
    assert [is_database(uri) for uri in ("postgresql+psycopg2://x", "mysql://x", "http://x", old_store)] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(RuntimeError, match=f"schema {OLD}.*for all who use it.*docs/shared-store.md"):
        check_database(old_store)  # SQLAlchemy reads every database alike
    assert revision(tmp_path / "mlflow.db") == OLD
