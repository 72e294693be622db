"""What a changed number, or a condition left out, does to recorded runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.corpus import CONF, Recording
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.ablation.changing import CONDITIONS, Change, all_changes, changed, readers
from experiments.scoreboard.ablation.drawn import DrawnRun, labels, missing, record
from experiments.scoreboard.ablation.effects import Effect
from experiments.scoreboard.ablation.judging import judge, judge_changed
from experiments.scoreboard.unseen import modern
from experiments.scoreboard.unseen.drawing import draw
from grad_callbacks.detection.rules.exploding_conditions import CONDITIONS as EXPLODING
from grad_callbacks.detection.rules.vanishing_thresholds import LIMITS
from tests.support.made_recordings import recording

VANISHING = ("detection.rules.vanishing_thresholds", "VanishingThresholds")


def made(early: float, number: int = 0, quality: float = 0.0) -> Recording:
    """A run whose first layer's gradient falls to ``early`` of the last one's after three readings."""
    start = [(1e-3, 1e-3, 1.0)] * 3  # no fault of the initialisation, which is told whatever the ratio
    run = recording(start + [(early, early, 1.0)] * 30, motion=[1e-6] * 3, quality=quality)
    return dataclasses.replace(run, scenario="drawn", seed=number)


def test_a_number_that_decides_changes_what_is_said_and_is_put_back(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{name}.npz" for name in ("vanishing", "healthy"))
    for path, early in zip(paths, (6e-7, 1.0), strict=True):  # the square of half the ratio is below the first
        made(early).write(path)
    usual = dataclasses.asdict(LIMITS)
    assert judge(paths) == [[("vanishing", 12)], []]
    assert judge_changed((paths, Change(*VANISHING, "ratio", 0.5))) == {0: []}
    assert judge_changed((paths, Change(*VANISHING, "ratio", 2.0))) == {}
    assert judge_changed((paths, Change(*VANISHING, "patience", 0.5))) == {0: [("vanishing", 7)]}
    assert judge_changed((paths, Change(*VANISHING, "patience", 1e12))) == {0: []}
    assert dataclasses.asdict(LIMITS) == usual


def test_every_number_and_condition_of_the_rules_is_tried_by_those_that_read_it() -> None:
    changes = {(change.subject, change.what): change for change in all_changes()}
    assert {what for subject, what in changes if subject == "VanishingThresholds.ratio"} == {
        "0",
        "half",
        "double",
        "infinite",
    }
    assert readers(changes["VanishingThresholds.ratio", "half"]) == ("Vanishing", "first_step")
    assert set(readers(changes["LossLevelThresholds.learned", "half"])) >= {"Exploding", "Vanishing"}
    left_out = changes["exploding_conditions.step_too_large", "left out"]
    assert left_out.owner == CONDITIONS
    before = list(EXPLODING)
    with changed(left_out) as is_changed:
        assert is_changed
        assert len(EXPLODING) == len(before) - 1
    assert list(EXPLODING) == before


def test_a_condition_that_is_left_out_raises_no_alert(tmp_path: Path) -> None:
    path = tmp_path / "exploding.npz"
    norms = [1.0] * 20 + [1e3, 1e4]
    recording(norms, displacement=1e3).write(path)  # far too large a step, beyond twenty displacements
    assert judge((path,))[0]
    changes = [change for change in all_changes() if change.owner == CONDITIONS and "too_large" in change.entry]
    assert any(judge_changed(((path,), change)) for change in changes)


def test_effects_are_counted_by_label() -> None:
    usual = [[("exploding", 5)], [], [], [("exploding", 5)], [("exploding", 5)]]
    said = {0: [], 1: [("nonfinite", 1)], 2: [("exploding", 3)], 3: [("exploding", 7)], 4: [("vanishing", 5)]}
    given = ["failing", "failing", "healthy", "failing", "failing"]
    assert Effect.of(usual, said, given) == Effect(lost=1, gained=1, alarmed=1, later=1, other=1)


def test_runs_are_labelled_by_what_their_problem_can_reach(tmp_path: Path) -> None:
    runs = [DrawnRun(number, tmp_path) for number in range(0, 400, 2)]
    alike = [run for run in runs if run.problem == runs[0].problem][:6]
    qualities = (0.9, 0.9, 0.9, 0.85, 0.8, float("nan"))
    recordings = {run.number: made(1.0, run.number, q) for run, q in zip(alike, qualities, strict=True)}
    other = next(run for run in runs if run.problem != runs[0].problem)
    recordings[other.number] = made(1.0, other.number, 0.9)  # alone, so that nobody knows what it can reach
    found = labels([*alike, other], recordings)
    assert list(found.values()) == ["healthy", "healthy", "healthy", "healthy", "unsettled", "failing"]


def test_odd_numbers_draw_the_nets_of_today(tmp_path: Path) -> None:
    assert DrawnRun(5000, tmp_path).settings == draw(5000)
    assert DrawnRun(5001, tmp_path).settings == draw(modern.FIRST + 5001)


@pytest.mark.slow
def test_the_command_records_judges_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = DrawnRun(5000, tmp_path)
    record(first, CONF)
    assert not missing([first])
    real = Recording.read(first.path)
    for number in range(5002, 5400, 2):  # the rest of a problem, as if they had been recorded
        run = DrawnRun(number, tmp_path)
        if run.problem == first.problem:
            dataclasses.replace(real, seed=number, quality=0.9).write(run.path)
        else:
            run.path.with_suffix(".error").write_text("not recorded here\n")
        run = DrawnRun(number - 1, tmp_path)
        run.path.with_suffix(".error").write_text("not recorded here\n")
    command = ["ablate", "--first", "5000", "--count", "399", "--workers", "1", "--only", "NonFiniteThresholds"]
    command += ["--folder", str(tmp_path), "--file", str(tmp_path / "found.json")]
    assert main(command) == 0
    assert "An alert is raised in 1 of 1 failing" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"]["failing"] == 1
    assert all(subject.startswith("NonFiniteThresholds.") for subject in found["effects"])
    assert "| `NonFiniteThresholds." in (tmp_path / "ablation.md").read_text()
    kept = next(tmp_path.glob("judged-*.jsonl"))
    before = kept.read_text()
    assert main(command) == 0
    assert kept.read_text() == before, "nothing was judged again"
