from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from grad_callbacks.tracking import JournaledMLFlowLogger


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"experiment_name": ""}, "experiment_name must be a text of 1 to 500 characters, got ''"),
        ({"experiment_name": None}, "got None"),
        ({"experiment_name": "x" * 501}, "experiment_name"),
        ({"run_name": 3}, "run_name must be a text or None, got 3"),
        ({"run_id": ""}, "run_id must be the id of a run"),
        ({"run_id": "../x"}, "run_id must be the id of a run"),
        ({"artifact_location": Path("x")}, "artifact_location"),
        ({"tags": ["a"]}, "tags must be a dictionary or None, got ['a']"),
        ({"save_dir": 3}, "save_dir must be a folder's path"),
        ({"journal_dir": 3}, "journal_dir must be a folder's path"),
        ({"prefix": None}, "prefix must be a text"),
        ({"log_model": "some"}, "log_model must be True, False or 'all', got 'some'"),
        ({"probe_timeout": -1}, "probe_timeout must be a finite number of seconds, 0 or more, got -1"),
        ({"probe_timeout": "5"}, "probe_timeout"),
        ({"finalize_timeout": float("inf")}, "finalize_timeout"),
        ({"disk_limit": 0}, "disk_limit must be a whole number of at least 1, got 0"),
        ({"disk_limit": 1.5}, "disk_limit"),
        ({"keep_journal": "no"}, "keep_journal must be True or False, got 'no'"),
        ({"tracking_uri": 3}, "tracking_uri must be an address such as"),
        ({"tracking_uri": ""}, "tracking_uri"),
        ({"tracking_uri": "127.0.0.1:5000"}, "write http://127.0.0.1:5000"),
        ({"tracking_uri": "localhost:5000"}, "write http://localhost:5000"),
        ({"tracking_uri": "./mlruns"}, "no longer keeps runs in a folder"),
        ({"tracking_uri": "sqlite://mlflow.db"}, "three slashes"),
        ({"tracking_uri": "http://"}, "needs a host"),
        ({"tracking_uri": "http://host:70000"}, "a port up to 65535"),
        ({"tracking_uri": "http://me:hush@host:x"}, "got 'http://***@host:x'"),
    ],
)
def test_a_wrong_argument_is_one_clear_error_at_once(
    arguments: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(told)):
        JournaledMLFlowLogger(**arguments)
    assert not list(tmp_path.iterdir())


def test_a_wrong_address_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI must be an address"):
        JournaledMLFlowLogger()


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "https://me:pw@host/mlflow",
        "http://[::1]:5000",
        "sqlite:///x.db",
        "sqlite:////x/y.db",
        "postgresql+psycopg2://me@db/mlflow",
        "databricks",
        "databricks://profile",
        "own-plugin://x",
        "file:///x",
    ],
)
def test_an_address_that_can_be_used_opens_nothing(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    JournaledMLFlowLogger(tracking_uri=uri, tags={"a": 1}, probe_timeout=0, save_dir=tmp_path, log_model="all")
    assert not list(tmp_path.iterdir())
