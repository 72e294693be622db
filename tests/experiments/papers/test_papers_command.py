"""The command of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.papers import __main__ as command


@pytest.mark.slow
def test_one_paper_is_printed_and_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--only", "mean_field", "--seeds", "1", "--workers", "1", "--folder", str(tmp_path)]
    assert command.main(arguments) == 0
    assert "mean_field, sigmoid 1, 0, seed 0" in capsys.readouterr().out
    assert command.main(arguments) == 0
    told = capsys.readouterr().out
    assert "mean_field, sigmoid" not in told
    assert "sigmoid, σ_w² 1, σ_b² 0 0.23" in told


def test_an_unknown_paper_is_refused_with_the_known_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "turing1936"])
    assert "he2015" in capsys.readouterr().err
