"""The guard without one of its parts, on runs that are drawn by lot."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from experiments.corpus import CONF
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.treatments import BARE, FAULTLESS, Treatment
from experiments.scoreboard.unseen.ablation import Ablated, train_treated
from experiments.scoreboard.unseen.ablation_command import rows
from experiments.scoreboard.unseen.parts import HOME, PARTS, Part, all_parts, plan_without, rivals
from experiments.scoreboard.unseen.training import GUARDED
from grad_callbacks import GradientGuard
from grad_callbacks.treatment.prescription.treatment import LIMITS

BROKEN = 7002  # its rate is raised


def tell(job: Ablated, treatment: Treatment, quality: float, *remedies: str, alerted: str = "exploding") -> None:
    job.folder.mkdir(exist_ok=True)
    outcome = Outcome("unseen", job.number, treatment.name, quality, alerted=(alerted,), remedies=remedies)
    outcome.write(job.run.path(treatment))


@pytest.mark.parametrize("part", [part for part in all_parts() if part.is_remedy], ids=lambda part: part.name)
def test_the_guard_can_be_built_without_each_of_its_remedies(part: Part) -> None:
    plan = plan_without(part.remedies)
    lists = GradientGuard(prescription=plan).prescription.remedies.values()
    left = {type(remedy).__name__ for remedies in lists for remedy in remedies}
    assert not left & set(part.remedies)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_numbers_are_set_while_a_part_is_left_out_and_are_back_afterwards(part: Part) -> None:
    modules = {path: import_module(f"{HOME}.{path}") for path in part.thresholds}
    before = {path: module.LIMITS for path, module in modules.items()}
    with part.left_out():
        for path, values in part.thresholds.items():
            assert {name: getattr(modules[path].LIMITS, name) for name in values} == values
    assert all(module.LIMITS is before[path] for path, module in modules.items())
    assert LIMITS.calm < 1000


def test_a_run_is_trained_only_without_parts_that_may_change_it(tmp_path: Path) -> None:
    job = Ablated(BROKEN, tmp_path, ["no_Rollback", "no_SkipStep", "clip_norm"])
    tell(job, GUARDED, 0.9, "SkipStep", alerted="nonfinite")
    [skip] = [part for part in all_parts() if part.name == "no_SkipStep"]
    tell(job, skip.treatment, 0.2)
    train_treated(job, CONF)
    assert len(list(tmp_path.iterdir())) == 2, "nothing else would change the run"


def test_a_row_tells_shares_of_the_run_without_its_fault_and_the_worst_loss(tmp_path: Path) -> None:
    job = Ablated(BROKEN, tmp_path)
    for treatment, quality in ((BARE, 0.1), (FAULTLESS, 0.8), (GUARDED, 0.8)):
        tell(job, treatment, quality, "Rollback")
    [part] = [part for part in all_parts() if part.name == "no_Rollback"]
    [rival] = [rival for rival in rivals(CONF) if rival.name == "reduce_lr"]
    tell(job, part.treatment, 0.4)
    tell(job, rival, 0.6)
    found = rows([job], ["no_Rollback", "reduce_lr"], CONF)
    assert [row.cells(found[0].shares) for row in found] == [
        ["default guard", "1", "1.00", "1.000", "0.000"],
        ["unguarded", "1", "0.00", "0.125", "0.875"],
        ["no_Rollback", "1", "0.00", "0.500", "0.500"],
        ["reduce_lr", "1", "0.00", "0.750", "0.250"],
    ]


def test_a_part_that_there_is_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ablate-remedies", "--count", "1", "--parts", "no_luck", "--folder", str(tmp_path)]
    assert main(command) == 2
    assert "there is no part 'no_luck'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_trains_a_broken_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ablate-remedies", "--first", str(BROKEN), "--count", "1", "--parts", "no_Rollback", "reduce_lr"]
    command += ["--workers", "1", "--folder", str(tmp_path)]
    assert main(command) == 0
    assert "Broken by a fault: 1 of 1 runs" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(made) == 5
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
