"""How much the rules' thresholds decide: ``python -m experiments.sensitivity`` halves and doubles each of them.

The rules judge the recorded runs of the tuning half again with one number changed. What is counted is the runs whose
alerts come otherwise: another kind, another step, one more or one less. ``docs/thresholds.md`` shows the counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from experiments.corpus import Recording
from experiments.scoreboard.choosing import choose
from experiments.scoreboard.commands import latest
from experiments.scoreboard.detectors.ours import replay
from experiments.thresholds import package_thresholds
from grad_callbacks._utils.thresholds import Thresholds
from grad_callbacks.detection.rules import RULES

FILE = Path(__file__).resolve().parents[1] / "docs" / "sensitivity.json"
MODULES = ("detection.rules.", "measurement.loss_level", "measurement.depth_profile")
FACTORS = (0.5, 2.0)

Alerts = list[list[tuple[str, int]]]  # kind and step of the alerts of each run


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sensitivity", description="Measure what numbers decide."
    )
    parser.add_argument("--folder", type=Path, default=Path("recordings"), help="of recordings (default: %(default)s)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the runs (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--file", type=Path, default=FILE, help="default: docs/sensitivity.json of this repository")
    options = parser.parse_args(arguments)
    paths = tuple(latest(options.folder, choose("tune", False, [], options.seeds, None)))
    if not paths:
        sys.stderr.write(
            "there are no recordings of the tuning half: python -m experiments.scoreboard detect --split tune\n"
        )
        return 2
    names = [f"{owner.__module__}:{owner.__name__}.{entry.name}" for owner in _owners() for entry in fields(owner)]
    jobs = [(paths, name, factor) for name in names for factor in FACTORS]
    with ProcessPoolExecutor(options.workers) as pool:
        counts = list(pool.map(_changed_runs, jobs))
    found = {
        name.partition(":")[2]: counts[place * len(FACTORS) : (place + 1) * len(FACTORS)]
        for place, name in enumerate(names)
    }
    options.file.write_text(json.dumps({"runs": len(paths), "changed": found}, indent=1) + "\n")
    return 0


def _owners() -> list[type[Thresholds]]:
    return [owner for owner in package_thresholds() if owner.__module__.partition(".")[2].startswith(MODULES)]


def _changed_runs(job: tuple[tuple[Path, ...], str, float]) -> int | None:
    """How many runs get other alerts; None for a value that has no half or double."""
    paths, name, factor = job
    with _changed(name, factor) as is_changed:
        if not is_changed:
            return None
        alerts = _alerts(paths, _readers(name))
    return sum(one != other for one, other in zip(alerts, _usual_alerts(paths, _readers(name)), strict=True))


@contextmanager
def _changed(name: str, factor: float) -> Iterator[bool]:
    """Multiply one threshold wherever it is read, until the block ends."""
    module, _, rest = name.partition(":")
    owner, _, entry = rest.partition(".")
    cls = getattr(import_module(module), owner)
    instances = [value for value in vars(import_module(module)).values() if type(value) is cls]
    usual = getattr(instances[0], entry)
    if not isinstance(usual, int | float):
        yield False
        return
    value = max(1, round(usual * factor)) if isinstance(usual, int) else usual * factor
    try:
        for instance in instances:
            object.__setattr__(instance, entry, value)
        yield value != usual
    finally:
        for instance in instances:
            object.__setattr__(instance, entry, usual)


def _readers(name: str) -> tuple[str, ...]:
    """The rules that read a threshold: the one whose module has it, or all; none if it is of the first step alone."""
    module = name.partition(":")[0].rpartition(".")[2]
    if module == "first_step":
        return ()
    return tuple(rule for rule in RULES if module.startswith(rule.lower())) or tuple(RULES)


def _alerts(paths: tuple[Path, ...], rules: tuple[str, ...]) -> Alerts:
    return [_of_run(recording, rules) for recording in _recordings(paths)]


@cache
def _usual_alerts(paths: tuple[Path, ...], rules: tuple[str, ...]) -> Alerts:
    return _alerts(paths, rules)


@lru_cache(maxsize=1)
def _recordings(paths: tuple[Path, ...]) -> list[Recording]:
    torch.set_num_threads(1)
    return [Recording.read(path) for path in paths]


def _of_run(recording: Recording, rules: tuple[str, ...]) -> list[tuple[str, int]]:
    found = []
    for stream in recording.streams.values():
        found += [(alert.kind, alert.step) for alert in replay(stream, _specs(rules))]
    return found


def _specs(rules: tuple[str, ...]) -> list[Any]:
    """Rules with their present thresholds: those that are arguments are given as such."""
    limits = {name: import_module(f"grad_callbacks.detection.rules.{name.lower()}").LIMITS for name in rules}
    return [{name: {key: getattr(limits[name], key) for key in _arguments(name)}} for name in rules]


def _arguments(name: str) -> list[str]:
    return [key for key in RULES[name].__init__.__annotations__ if key != "return"]


if __name__ == "__main__":
    sys.exit(main())
