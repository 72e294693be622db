"""The table of thresholds: all numbers are in it, and a change is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.thresholds import document, main, package_thresholds, table
from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class SampleThresholds(Thresholds):
    """Thresholds of a sample."""

    factor: float = threshold(1e-17, "more of it | is too much", unit="x usual norm", source="Pascanu 2013, sec. 3.2")
    patience: int = threshold(40, "how long it waits", unit="readings", source="not measured")
    bounds: tuple[float, int] = threshold((0.25, 3), "where it stays", unit="1", source="measured: on 40 runs")


def test_every_field_has_a_row() -> None:
    lines = table(SampleThresholds).splitlines()
    assert lines[0] == "### Sample"
    assert lines[2] == "Thresholds of a sample. (`tests/test_thresholds_doc.py`)"
    assert lines[6:] == [
        "| `factor` | 1e-17 | x usual norm | more of it \\| is too much | Pascanu 2013, sec. 3.2 |",
        "| `patience` | 40 | readings | how long it waits | not measured |",
        "| `bounds` | 0.25, 3 | 1 | where it stays | measured: on 40 runs |",
    ]


def test_what_was_measured_stands_beside_each_number() -> None:
    effects = {"SampleThresholds.factor": {"half": {"lost": 2}, "double": {"alarmed": 1, "later": 3}, "0": {"lost": 9}}}
    effects |= {"SampleThresholds.bounds": {"half": None, "double": None}}
    rows = table(SampleThresholds, effects).splitlines()[6:]
    assert [row.rpartition(" | ")[2] for row in rows] == ["2 / 0, 0 / 1 |", " |", "–, – |"]
    assert "of 7 failing and 5 healthy" in document(
        [SampleThresholds], {"runs": {"failing": 7, "healthy": 5}} | {"effects": effects}
    )


def test_numbers_without_a_source_are_counted() -> None:
    assert "3 numbers in 1 dataclasses; 1 of them have no source yet" in document([SampleThresholds])


def test_all_of_the_package_are_found_room_by_room_and_no_other() -> None:
    modules = [owner.__module__.split(".")[:2] for owner in package_thresholds()]
    assert modules[0] == ["grad_callbacks", "measurement"]
    assert {package for package, _ in modules} == {"grad_callbacks"}
    rooms = [room for _, room in modules]
    assert len({*map(tuple, modules)}) == sum(a != b for a, b in zip([None, *rooms], rooms, strict=False))


def test_a_change_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "thresholds.md"
    assert main(["--check", "--file", str(file)]) == 1
    assert main(["--file", str(file)]) == 0
    assert main(["--check", "--file", str(file)]) == 0
    capsys.readouterr()
    file.write_text(file.read_text().replace("| 512 |", "| 513 |"))
    assert main(["--check", "--file", str(file)]) == 1
    assert capsys.readouterr().err == f"{file} is out of date: run python -m experiments.thresholds\n"


def test_the_table_is_the_same_each_time() -> None:
    assert document(package_thresholds()) == document(package_thresholds())
