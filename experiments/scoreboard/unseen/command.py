"""The command: draw, train what is missing, and tell what the guard has made of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console

from experiments.corpus.workers import quiet, work_through
from experiments.scoreboard.commands import progress
from experiments.scoreboard.repair.scoring import HARMED, REPAIRED
from experiments.scoreboard.repair.treatments import FAULTLESS, WATCHED
from experiments.scoreboard.unseen.training import GUARDED, UnseenRun, train

BETTER = 0.02  # of quality: what the guard has raised, and not the noise of another rounding


@dataclass(frozen=True)
class Verdict:
    """What the guard has come to on an unseen run.

    Attributes:
        run: The run.
        unguarded: Quality without the guard, within 0 and 1.
        faultless: The same without its fault.
        guarded: Quality with the guard.
        remedies: What the guard has applied.
        is_alarmed: It has raised an alert.
        error: Why it could not be trained; empty if it could.
    """

    run: UnseenRun
    unguarded: float
    faultless: float
    guarded: float
    remedies: Sequence[str] = ()
    is_alarmed: bool = False
    error: str = ""

    @classmethod
    def of(cls, run: UnseenRun) -> Verdict:
        """Read the outcomes of a run."""
        unguarded, guarded = run.outcome(WATCHED), run.outcome(GUARDED)
        faultless = run.outcome(FAULTLESS) if run.has_fault else unguarded
        return cls(
            run,
            *(_within(outcome.quality) for outcome in (unguarded, faultless, guarded)),
            guarded.remedies,
            bool(guarded.alerted),
            unguarded.error or faultless.error or guarded.error,
        )

    @property
    def is_broken(self) -> bool:
        """True if its fault has cost it more than a twentieth of its quality."""
        return self.unguarded < REPAIRED * self.faultless

    @property
    def is_repaired(self) -> bool:
        """True if it is broken, and the guard has brought it to where it would be without the fault."""
        return self.is_broken and self.guarded >= REPAIRED * self.faultless

    @property
    def is_harmed(self) -> bool:
        """True if the guard has made it worse."""
        return self.guarded < HARMED * self.unguarded

    @property
    def is_better(self) -> bool:
        """True if the guard has made it better."""
        return self.guarded > self.unguarded + BETTER


def unseen(numbers: Sequence[int], folder: Path, workers: int, conf: Path) -> int:
    """Draw runs, train what is missing, and tell what the guard has made of them.

    Args:
        numbers: Of the runs.
        folder: Of the outcomes.
        workers: Number of processes.
        conf: The folder of the configs.

    Returns:
        The exit status: 1 if a run could not be trained.
    """
    console, started = Console(), time.monotonic()
    quiet()
    runs = [UnseenRun(number, folder) for number in numbers]
    due = [run for run in runs if not all(run.path(treatment).exists() for treatment in run.treatments)]
    if due:
        with progress(console, "trained", len(due)) as advance:
            work_through(train, due, workers, conf, lambda run: advance())
    verdicts = [Verdict.of(run) for run in runs]
    tell(console, verdicts)
    console.print(f"{len(due)} of {len(runs)} runs trained in {time.monotonic() - started:.0f} s.")
    return 1 if any(one.error for one in verdicts) else 0


def tell(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print by name what is not repaired, or harmed, or could not be trained; then the figures."""
    well = [one for one in verdicts if not one.error]
    broken, others = [one for one in well if one.is_broken], [one for one in well if not one.is_broken]
    _tell_names(console, "not repaired", [one for one in broken if not one.is_repaired])
    _tell_names(console, "harmed", [one for one in others if one.is_harmed])
    _tell_names(console, "could not be trained", [one for one in verdicts if one.error])
    repaired = sum(one.is_repaired for one in broken)
    console.print(f"Broken by a fault: {len(broken)}; repaired {repaired}.", highlight=False)
    alarmed, better = sum(one.is_alarmed for one in others), sum(one.is_better for one in others)
    harmed = sum(one.is_harmed for one in others)
    told = f"All others: {len(others)}; with an alert {alarmed}, made better {better}, worse {harmed}."
    console.print(told, highlight=False)
    if well:
        before, after = fmean(one.unguarded for one in well), fmean(one.guarded for one in well)
        console.print(f"Mean quality: {before:.3f} unguarded, {after:.3f} guarded.", highlight=False)


def _tell_names(console: Console, title: str, group: Sequence[Verdict]) -> None:
    if group:
        console.print(f"[bold]{title}[/bold] ({len(group)})")
    for one in group:
        told = f"{one.unguarded:.2f}, faultless {one.faultless:.2f}, guarded {one.guarded:.2f}"
        done = one.error or f"{told}; {', '.join(one.remedies) or 'no remedy'}"
        console.print(f"  {one.run.number}: {done}; {' '.join(one.run.settings)}", highlight=False, soft_wrap=True)


def _within(quality: float) -> float:
    """The quality within 0 and 1; 0 where it is not finite."""
    return min(1.0, max(0.0, quality)) if quality == quality else 0.0
