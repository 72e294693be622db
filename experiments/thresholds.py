"""Writes docs/thresholds.md, the table of all numbers that decide: ``python -m experiments.thresholds``."""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import grad_callbacks
from grad_callbacks._utils.thresholds import Thresholds, all_thresholds

FILE = Path(__file__).resolve().parents[1] / "docs" / "thresholds.md"
SENSITIVITY = FILE.with_name("sensitivity.json")  # written by python -m experiments.scoreboard ablate
ROOMS = ("measurement", "detection", "treatment", "reporting", "engine", "tracking", "callbacks")
NO_SOURCE = "not measured"  # how a source begins that is none
JUDGING = ("measurement.", "detection.rules.")  # the modules whose numbers decide whether an alert is raised
BEFORE = 131  # numbers that these had before each was measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or check it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.thresholds", description="Write docs/thresholds.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is out of date")
    parser.add_argument("--file", type=Path, default=FILE, help="default: docs/thresholds.md of this repository")
    options = parser.parse_args(arguments)
    text = document(package_thresholds(), json.loads(SENSITIVITY.read_text()) if SENSITIVITY.is_file() else {})
    if not options.check:
        options.file.write_text(text)
        return 0
    if options.file.is_file() and options.file.read_text() == text:
        return 0
    sys.stderr.write(f"{options.file} is out of date: run python -m experiments.thresholds\n")
    return 1


def package_thresholds() -> list[type[Thresholds]]:
    """All dataclasses of thresholds in ``grad_callbacks``, room by room, by module and name."""
    for module in pkgutil.walk_packages(grad_callbacks.__path__, "grad_callbacks."):
        # Adapters need the library that they are for, and decide nothing.
        if not module.name.endswith("__main__") and not module.name.startswith("grad_callbacks.adapters."):
            import_module(module.name)
    own = [owner for owner in all_thresholds() if owner.__module__.startswith("grad_callbacks.")]
    return sorted(own, key=lambda owner: _place(_room(owner)))  # sorting is stable


def document(owners: Iterable[type[Thresholds]], sensitivity: Mapping[str, Any] | None = None) -> str:
    """Return the whole file.

    Args:
        owners: The dataclasses, those of one room together.
        sensitivity: What ``python -m experiments.scoreboard ablate`` has measured: ``runs`` by label, and in
            ``effects`` for each number what is lost and alarmed if it is halved and doubled.
    """
    owners, effects = list(owners), (sensitivity or {}).get("effects", {})
    numbers = [entry for owner in owners for entry in fields(owner)]
    open_ones = sum(entry.metadata["source"].startswith(NO_SOURCE) for entry in numbers)
    judging = sum(len(fields(owner)) for owner in owners if owner.__module__.partition(".")[2].startswith(JUDGING))
    parts = [
        "# Thresholds\n",
        "Every number that decides, with its unit, meaning and source. Written by `python -m experiments.thresholds`; "
        "the numbers themselves are in the code, each beside the rule, remedy or probe that uses it.\n",
        f"{len(numbers)} numbers in {len(owners)} dataclasses; {open_ones} of them have no source yet "
        f"(`{NO_SOURCE}`). {judging} of them decide whether an alert is raised, in the measurement and the "
        f"rules; they were {BEFORE} before each was left out on runs that are drawn by lot "
        "([scoreboard.md](scoreboard.md#what-each-number-is-worth)).\n",
    ]
    if effects:
        runs = (sensitivity or {})["runs"]
        parts.append(
            f"*lost / alarmed*: of {runs.get('failing', 0)} failing and {runs.get('healthy', 0)} healthy runs that "
            "were drawn by lot, how many failing ones raise no alert any more and how many healthy ones raise one, "
            "if the number is halved, and if it is doubled; – where it has no half. What is measured of a run is in "
            "its recording: those numbers are not tried.\n"
        )
    for room, its in groupby(owners, key=_room):
        parts.append(f"## {room}\n")
        parts += [table(owner, effects) for owner in its]
    return "\n".join(parts)


def table(owner: type[Thresholds], effects: Mapping[str, Mapping[str, Mapping[str, int] | None]] | None = None) -> str:
    """Return the section of one dataclass: its heading, its docstring and one row a number."""
    path = owner.__module__.replace(".", "/")
    measured = {entry.name: (effects or {}).get(f"{owner.__name__}.{entry.name}") for entry in fields(owner)}
    is_measured = any(measured.values())
    lines = [
        f"### {owner.__name__.removesuffix('Thresholds')}\n",
        f"{_cell(owner.__doc__ or '')} (`{path}.py`)\n",
        "| name | value | unit | meaning | source |" + (" lost / alarmed |" if is_measured else ""),
        "| --- | --- | --- | --- | --- |" + (" --- |" if is_measured else ""),
    ]
    for entry in fields(owner):
        about = entry.metadata
        cells = [f"`{entry.name}`", _value(entry.default), about["unit"], about["meaning"], about["source"]]
        if is_measured:
            effect = measured[entry.name] or {}
            cells.append(", ".join(_counts(effect[change]) for change in ("half", "double") if change in effect))
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _counts(effect: Mapping[str, int] | None) -> str:
    return "–" if effect is None else f"{effect.get('lost', 0)} / {effect.get('alarmed', 0)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _room(owner: type[Thresholds]) -> str:
    return owner.__module__.split(".")[1]


def _place(room: str) -> int:
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


if __name__ == "__main__":
    sys.exit(main())
