"""Wrong options and stores on the command line: one line each, and nothing is left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from grad_callbacks import __version__
from grad_callbacks.tracking.cli import main
from tests.support.servers import NO_SERVER


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"grad-callbacks {__version__}\n"


@pytest.mark.parametrize("port", ["70000", "0", "-1", "five"])
def test_a_port_that_does_not_exist(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ui", f"--port={port}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert f"a port is a number from 1 to 65535, got {port!r}" in said[-1]


def test_compare_in_an_empty_folder_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["compare"]) == 2
    assert "mlflow.db cannot be used: there is no such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ui", "--store", NO_SERVER], "is a server already"),
        (["compare", "--store", NO_SERVER.replace("//", "//me:hush@")], "cannot be used"),
        (["ui", "--store", "postgresql://me:hush@127.0.0.1:9/mlflow"], "cannot be used"),
        (["ui", "--store", "nothing://x"], "cannot be used"),
        (["compare", "--store", "sqlite:////no/such/folder/mlflow.db"], "no such file"),
    ],
)
def test_a_store_that_does_not_answer_is_one_line_within_seconds(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    started = time.monotonic()
    assert main(arguments) == 2
    assert time.monotonic() - started < 30
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert "hush" not in said
    assert not list(tmp_path.iterdir())
