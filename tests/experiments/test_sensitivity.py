"""What a halved or doubled threshold changes on recorded runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import sensitivity
from experiments.scoreboard.choosing import choose
from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS, VanishingThresholds
from tests.support.made_recordings import recording


def test_a_number_that_decides_is_counted_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = list(choose("tune", seeds=[0]).needed)[:2]
    for name, early in zip(needed, (6e-7, 1.0), strict=True):  # the square of half the ratio is below the first
        start = [(1e-3, 1e-3, 1.0)] * 3  # no fault of the initialisation, which is told whatever the ratio
        made = recording(start + [(early, early, 1.0)] * 30, motion=[1e-6] * 3)
        dataclasses.replace(made, scenario=name).write(tmp_path / f"{name}-0-made.npz")
    usual = dataclasses.asdict(LIMITS)
    monkeypatch.setattr(sensitivity, "_owners", lambda: [VanishingThresholds])
    assert sensitivity.main(["--folder", str(tmp_path), "--file", str(tmp_path / "found.json"), "--workers", "1"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"] == 2
    assert found["changed"]["VanishingThresholds.ratio"] == [1, 0]
    assert found["changed"]["VanishingThresholds.patience"] == [1, 1], "the alert comes at another step"
    assert found["changed"]["VanishingThresholds.slow_motion"] == [0, 0]
    assert dataclasses.asdict(LIMITS) == usual


def test_without_recordings_one_line_says_how_to_make_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sensitivity.main(["--folder", str(tmp_path)]) == 2
    assert "experiments.scoreboard detect" in capsys.readouterr().err
