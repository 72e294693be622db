"""The command: train failing runs without one part of the guard after the other, and tell what each is worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.corpus.workers import quiet, work_through
from experiments.scoreboard.commands import progress
from experiments.scoreboard.repair.scoring import REPAIRED
from experiments.scoreboard.repair.treatments import BARE
from experiments.scoreboard.unseen.ablation import Ablated, train_bare, train_treated
from experiments.scoreboard.unseen.parts import all_parts, rivals
from experiments.scoreboard.unseen.training import GUARDED


@dataclass(frozen=True)
class Row:
    """What came of the runs under one treatment.

    Attributes:
        name: Of the treatment.
        shares: For each run its quality as a share of that without the fault.
        others: How many runs the treatment may change, beside the guard.
    """

    name: str
    shares: Sequence[float]
    others: int

    def cells(self, guarded: Sequence[float]) -> list[str]:
        """Name, runs, share repaired, mean, and the largest loss of a run beside the default guard."""
        repaired = fmean(share >= REPAIRED for share in self.shares)
        worst = max(0.0, *(before - share for before, share in zip(guarded, self.shares, strict=True)))
        return [self.name, str(self.others), f"{repaired:.2f}", f"{fmean(self.shares):.3f}", f"{worst:.3f}"]


def ablate(numbers: Sequence[int], names: Sequence[str], folder: Path, workers: int, conf: Path) -> int:
    """Train what is missing, and print a table.

    Only runs that a fault has broken are treated; the same command goes on from what there is.

    Args:
        numbers: Of the runs that are drawn.
        names: Of the parts and rivals; empty for all.
        folder: Of the outcomes.
        workers: Number of processes.
        conf: The folder of the configs.

    Returns:
        The exit status.

    Raises:
        ValueError: If there is no part or rival of a name.
    """
    known = [*(part.name for part in all_parts()), *(rival.name for rival in rivals(conf))]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no part {unknown[0]!r}; parts are {', '.join(known)}")
    console, started = Console(), time.monotonic()
    quiet()
    drawn = [job for number in numbers if (job := Ablated(number, folder, names)).run.has_fault]
    _work(console, "as it is", train_bare, drawn, workers, conf)
    broken = [job for job in drawn if job.is_broken]
    _work(console, "treated", train_treated, broken, workers, conf)
    if broken:
        console.print(table(rows(broken, names, conf)))
    console.print(f"Broken by a fault: {len(broken)} of {len(drawn)} runs; {time.monotonic() - started:.0f} s.")
    return 0


def rows(broken: Sequence[Ablated], names: Sequence[str], conf: Path) -> list[Row]:
    """Return what came of runs, the default guard's row first."""

    def is_chosen(name: str) -> bool:
        return not names or name in names

    found = [
        Row("default guard", [job.share(GUARDED) for job in broken], len(broken)),
        Row("unguarded", [job.share(BARE) for job in broken], len(broken)),
    ]
    for part in filter(lambda part: is_chosen(part.name), all_parts()):
        shares = [job.share(part.treatment, part) for job in broken]
        found.append(Row(part.name, shares, sum(not job.is_same(part) for job in broken)))
    for rival in filter(lambda rival: is_chosen(rival.name), rivals(conf)):
        found.append(Row(rival.name, [job.share(rival) for job in broken], len(broken)))
    return found


def table(found: Sequence[Row]) -> Table:
    """Return a table of what came of the runs; the first row is the default guard's."""
    made = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    made.add_column("treatment")
    for head in ("runs that may differ", "repaired", "mean quality", "worst loss"):
        made.add_column(head, justify="right")
    for row in found:
        made.add_row(*row.cells(found[0].shares))
    return made


def _work(
    console: Console,
    what: str,
    work: Callable[[Ablated, Path], None],
    jobs: Sequence[Ablated],
    workers: int,
    conf: Path,
) -> None:
    with progress(console, what, len(jobs)) as advance:
        work_through(work, jobs, workers, conf, lambda job: advance())
