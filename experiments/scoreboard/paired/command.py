"""The command: train what is missing, and tell who does best in each family."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import Console

from experiments.corpus.workers import quiet, work_through
from experiments.scoreboard.commands import progress
from experiments.scoreboard.paired.pairs import ARITHMETICS, OTHERS, SCENARIOS, SINGLE, Pair, train
from experiments.scoreboard.paired.table import tables
from experiments.scoreboard.repair.treatments import OURS, UNGUARDED, WATCHED, all_treatments

CAPABILITY = "ATEN_CPU_CAPABILITY"


@dataclass(frozen=True)
class Grid:
    """Which runs are paired.

    Attributes:
        scenarios: Names, by default all of :data:`~experiments.scoreboard.paired.pairs.SCENARIOS`.
        rates: What the learning rates are multiplied with.
        seeds: Seeds.
        arithmetics: Those of torch's kernels that the processor has.
        treatments: Names, by default ours, each single remedy, and those of others.
    """

    scenarios: Sequence[str]
    rates: Sequence[float]
    seeds: Sequence[int]
    arithmetics: Sequence[str]
    treatments: Sequence[str]


def paired(grid: Grid, folder: Path, workers: int, conf: Path, page: Path | None) -> int:
    """Train what is missing of a grid, and tell who does best.

    Args:
        grid: Which runs.
        folder: Of the outcomes.
        workers: Number of processes for each arithmetic.
        conf: The folder of the configs.
        page: Markdown is written there, too.

    Returns:
        The exit status.

    Raises:
        ValueError: If a name of the grid is unknown.
    """
    console, started = Console(), time.monotonic()
    quiet()
    known = {treatment.name: treatment for treatment in (WATCHED, *all_treatments(conf).values())}
    names = list(grid.treatments or (UNGUARDED, OURS, *SINGLE, *OTHERS))
    _refuse_unknown("treatment", names, known)
    _refuse_unknown("scenario", grid.scenarios, SCENARIOS)
    _refuse_unknown("arithmetic", grid.arithmetics, ARITHMETICS)
    chosen = [known[name] for name in names]
    scenarios = grid.scenarios or list(SCENARIOS)
    settings = product(scenarios, grid.rates, grid.seeds, grid.arithmetics)
    pairs = [Pair(*setting, chosen, folder) for setting in settings]
    due = [pair for pair in pairs if pair.is_due]
    if due:
        with progress(console, "trained", len(due)) as advance:
            for arithmetic in grid.arithmetics:
                group = [pair for pair in due if pair.arithmetic == arithmetic]
                with _arithmetic(arithmetic):  # its processes are fresh, and read it as they import torch
                    work_through(train, group, max(2, workers), conf, lambda pair: advance())
    told = tables(pairs, chosen)
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    if page is not None:
        page.write_text(told)
    console.print(f"{len(due)} of {len(pairs)} runs trained in {time.monotonic() - started:.0f} s.")
    return 0


def _refuse_unknown(what: str, names: Sequence[str], known: object) -> None:
    for name in names:
        if name not in known:  # type: ignore[operator]
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")  # type: ignore[arg-type]


@contextmanager
def _arithmetic(name: str) -> Iterator[None]:
    before = os.environ.get(CAPABILITY)
    os.environ[CAPABILITY] = name
    try:
        yield
    finally:
        os.environ.pop(CAPABILITY)
        if before is not None:
            os.environ[CAPABILITY] = before
