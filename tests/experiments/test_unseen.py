"""Runs that are drawn by lot: their settings, what is made of their outcomes, and the command from end to end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra import compose
from rich.console import Console

from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.unseen import modern
from experiments.scoreboard.unseen.command import Verdict, tell
from experiments.scoreboard.unseen.drawing import NETWORKS, draw
from experiments.scoreboard.unseen.training import UnseenRun


def test_a_number_always_draws_the_same_settings_and_they_compose() -> None:
    assert draw(7) == draw(7) != draw(8)
    drawn = [draw(number) for number in range(60)]
    faults = {setting for settings in drawn for setting in settings if setting.startswith("fault=")}
    assert faults == {"fault=corrupt_batch", "fault=bad_value", "fault=raised_rate"}
    models = {setting for settings in drawn for setting in settings if setting.startswith("model=")}
    assert len(models) == len(NETWORKS) - 1, "the networks but for regression, which is an MLP too"
    with configs():
        for settings in drawn[:20]:
            assert compose("config", overrides=[*settings, "guard=none", "logger=none"]).trainer.max_steps > 0


def verdict(unguarded: float, faultless: float, guarded: float, error: str = "") -> Verdict:
    return Verdict(UnseenRun(0, Path()), unguarded, faultless, guarded, error=error)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (verdict(0.1, 0.9, 0.9), (True, True, False, True)),
        (verdict(0.1, 0.9, 0.8), (True, False, False, True)),
        (verdict(0.9, 0.9, 0.9), (False, False, False, False)),
        (verdict(0.9, 0.9, 0.8), (False, False, True, False)),
        (verdict(0.1, 0.1, 0.9), (False, False, False, True)),
    ],
)
def test_what_is_broken_repaired_harmed_and_made_better(one: Verdict, told: tuple[bool, ...]) -> None:
    assert (one.is_broken, one.is_repaired, one.is_harmed, one.is_better) == told


def test_what_could_not_be_trained_counts_for_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    tell(
        Console(width=200), [verdict(0.0, 0.9, 0.0, "OSError: broken"), verdict(0.1, 0.9, 0.9), verdict(0.5, 0.5, 0.4)]
    )
    out = capsys.readouterr().out
    assert "could not be trained (1)" in out
    assert "Broken by a fault: 1; repaired 1." in out
    assert "All others: 1; with an alert 0, made better 0, worse 1." in out
    assert "Mean quality: 0.300 unguarded, 0.650 guarded." in out


def test_the_command_trains_what_is_missing_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["unseen", "--first", "3", "--count", "1", "--workers", "1", "--folder", str(tmp_path)]
    assert main(command) == 0
    assert "1 of 1 runs trained" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == len(UnseenRun(3, tmp_path).treatments)
    assert main(command) == 0
    assert "0 of 1 runs trained" in capsys.readouterr().out


def test_numbers_from_100000_on_draw_the_nets_of_today() -> None:
    assert draw(modern.FIRST) == draw(modern.FIRST) == modern.draw(modern.FIRST) != draw(modern.FIRST + 1)
    drawn = [draw(number) for number in range(modern.FIRST, modern.FIRST + 200)]
    models = {setting for settings in drawn for setting in settings if setting.startswith("model=")}
    assert len(models) == 15, "14 families: policies and Muon share a net, and there are three squashed outputs"
    optimizers = {setting for settings in drawn for setting in settings if setting.startswith("optimizer=")}
    assert {"optimizer=muon", "optimizer=adafactor", "optimizer=adamw"} < optimizers
    faults = {setting for settings in drawn for setting in settings if setting.startswith("fault=")}
    assert faults == {"fault=corrupt_batch", "fault=bad_value", "fault=raised_rate"}
    words = [settings for settings in drawn if "data=words" in settings]
    assert not any("fault=bad_value" in settings or "fault=corrupt_batch" in settings for settings in words)
    with configs():
        for settings in drawn[:12]:
            assert compose("config", overrides=[*settings, "guard=none", "logger=none"]).trainer.max_steps > 0


def test_older_numbers_draw_as_they_always_have() -> None:
    assert draw(4000)[:6] == [
        "trainer=steps",
        "trainer.max_steps=250",
        "seed=4000",
        "optimizer=sgd",
        "optimizer.lr=0.143",
        "schedule=cosine",
    ]


@pytest.mark.parametrize("family", modern.FAMILIES)
def test_each_family_can_be_drawn_and_trained(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if family == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("Muon came with torch 2.9")
    monkeypatch.setattr(modern, "FAMILIES", {family: modern.FAMILIES[family]})
    settings = [*modern.draw(modern.FIRST), "trainer.max_steps=2", "trainer.val_check_interval=1"]
    with configs():
        result = run(compose("config", overrides=[*settings, "guard=none", "logger=none"]))
    assert not math.isnan(result.quality)
