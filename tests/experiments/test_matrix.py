"""The matrix names what it runs and what it does not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from experiments import matrix


def test_every_row_is_named_and_missing_pythons_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrix, "find", lambda version: "/here/python" if version == "3.11" else None)
    assert matrix.main(["--list"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == len(matrix.ROWS)
    for row, line in zip(matrix.ROWS, lines, strict=True):
        assert line.startswith(row.name)
        assert ("can be run" in line) == (row.python == "3.11")


def test_this_interpreter_is_found_and_one_that_no_one_has_is_not() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if shutil.which(f"python{version}") is not None:
        assert matrix.find(version) is not None
    assert matrix.find("3.99") is None


def test_a_row_that_cannot_be_installed_is_not_run_and_fails_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    monkeypatch.setattr(matrix, "find", lambda version: shutil.which("false"))
    assert matrix.main(["--only", "pinned"]) == 1, "nothing was run"
    assert "not run: it could not be installed" in capsys.readouterr().out


def test_its_files_are_there() -> None:
    for name in matrix.SMOKE:
        assert (matrix.ROOT / name).exists(), name


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(SystemExit):
        matrix.main(["--only", "2.7"])
