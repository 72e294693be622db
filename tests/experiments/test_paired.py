"""``experiments.scoreboard paired``: the guard against each single remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.corpus import CONF
from experiments.scoreboard.__main__ import main
from experiments.scoreboard.paired.pairs import SCENARIOS, Pair
from experiments.scoreboard.paired.table import tables
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.treatments import BARE, all_treatments


@pytest.mark.parametrize("argument", ["--scenarios", "--treatments", "--arithmetics"])
def test_an_unknown_name_is_refused(argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paired", argument, "nonsense", "--folder", str(tmp_path)]) == 2
    assert "unknown" in (told := capsys.readouterr().err)
    assert "'nonsense'; known are " in told


def test_every_scenario_is_one_that_is_there() -> None:
    for name in {*SCENARIOS, *SCENARIOS.values()}:
        assert (CONF / "experiment" / f"{name}.yaml").exists()


def test_the_table_names_the_families_in_which_a_single_remedy_does_better(tmp_path: Path) -> None:
    known = all_treatments(CONF)
    treatments = [known["full"], known["reduce_lr"]]
    pairs = [Pair("high_lr", rate, 0, "default", treatments, tmp_path) for rate in (1.0, 2.0)]
    qualities = {1.0: (0.95, 0.9), 2.0: (0.2, 0.92)}
    for pair in pairs:
        Outcome("healthy", 0, "bare", 0.96).write(pair.path(BARE))
        for treatment, quality in zip(treatments, qualities[pair.rate], strict=True):
            Outcome("high_lr", 0, treatment.name, quality).write(pair.path(treatment))
    told = tables(pairs, treatments)
    assert "| high_lr | x1 | 1 | 1.00, 0.950 | 0.00, 0.900 |" in told
    assert "more runs than `full`: high_lr x2: reduce_lr 1.00, full 0.00." in told


@pytest.mark.slow
def test_it_trains_what_is_missing_under_each_arithmetic(tmp_path: Path) -> None:
    page = tmp_path / "paired.md"
    grid = ["--scenarios", "high_lr", "--rates", "1", "--seeds", "0", "--treatments", "unguarded", "reduce_lr"]
    assert main(["paired", *grid, "--arithmetics", "default", "--folder", str(tmp_path), "--page", str(page)]) == 0
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert "| high_lr | x1 | 1 | 0.00, 0.1" in page.read_text()
