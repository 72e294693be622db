"""The command: treat what is missing, score, print, draw and log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from experiments.corpus import label_runs
from experiments.corpus.workers import quiet, work_through
from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.commands import progress
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.picture import repair_picture
from experiments.scoreboard.repair.scoring import score
from experiments.scoreboard.repair.shelf import Shelf
from experiments.scoreboard.repair.table import repair_table, tell_failures
from experiments.scoreboard.repair.tracking import EXPERIMENT, log_repairs
from experiments.scoreboard.repair.treating import Job, treat
from experiments.scoreboard.repair.treatments import FAULTLESS, OURS, UNGUARDED, WATCHED, Treatment, all_treatments
from experiments.scoreboard.table import tell_runs
from grad_callbacks.tracking import default_store, prepare_store


def repair(
    choice: Choice,
    names: Sequence[str],
    recordings: Path,
    folder: Path,
    workers: int,
    picture: Path,
    is_logged: bool,
) -> int:
    """Treat what is missing, and score all treatments.

    Failing runs are treated with every seed, healthy ones, for harm, with the first only.

    Args:
        choice: The runs.
        names: Of the treatments; all if there is none.
        recordings: Folder of recordings; unguarded runs are taken from there if they fit.
        folder: Of the outcomes.
        workers: Number of processes.
        picture: The file of the picture.
        is_logged: Log to MLflow as well.

    Returns:
        The exit status.
    """
    console, started = Console(), time.monotonic()
    quiet()
    treatments = _chosen(choice, names)
    client = prepare_store(default_store()) if is_logged else None  # a store that cannot be used is told at once
    shelf = Shelf(folder, recordings, choice)
    trained = _train(
        console,
        "unguarded",
        [shelf.job(run, [WATCHED]) for run in shelf.runs if not shelf.untreated(run)],
        workers,
        choice.conf,
    )
    unguarded = {run: outcome for run in shelf.runs if (outcome := shelf.untreated(run)) is not None}
    labelled = label_runs(choice.needed, {run: outcome.quality for run, outcome in unguarded.items()})
    wanted = {"failing": choice.seeds, "healthy": choice.seeds[:1], "unsettled": []}
    runs = [run for run, label in labelled.labels.items() if run[0] in choice.scenarios and run[1] in wanted[label]]
    injected = [run for run in runs if choice.scenarios[run[0]].has_fault]
    acting = {run: [t for t in treatments.values() if t != FAULTLESS or run in injected] for run in runs}
    acting = {run: [t for t in those if t.may_act(unguarded[run].alerted)] for run, those in acting.items()}
    trained += _train(console, "faultless", [shelf.job(run, [FAULTLESS]) for run in injected], workers, choice.conf)
    faultless = [outcome for run in injected if (outcome := shelf.outcome(run, FAULTLESS)) is not None]
    trained += _train(
        console, "treated", [shelf.job(run, those) for run, those in acting.items()], workers, choice.conf
    )
    outcomes: dict[str, list[Outcome]] = {UNGUARDED: [unguarded[run] for run in runs]}
    for treatment in treatments.values():
        found = (
            shelf.outcome(run, treatment) if treatment in acting[run] else unguarded[run].as_treated(treatment.name)
            for run in runs
        )
        outcomes[treatment.name] = [outcome for outcome in found if outcome is not None]
    known = (unguarded, choice.scenarios, labelled.labels, faultless)
    scores = [score(name, those, *known) for name, those in outcomes.items()]
    tell_runs(console, labelled, choice.scenarios)
    for one in scores:
        if one.treatment == OURS:
            console.rule(one.treatment)
            tell_failures(console, one)
    console.print(repair_table(scores))
    figure = repair_picture(scores, f"Repair: {choice.title}")
    figure.savefig(picture, dpi=150)
    if client is not None:
        log_repairs(client, choice, {UNGUARDED: WATCHED, **treatments}, scores, figure)
        console.print(f"Logged to MLflow, experiment {EXPERIMENT!r}.")
    console.print(f"Drawn in {picture}. {trained} runs trained in {time.monotonic() - started:.0f} s.")
    return 0


def _chosen(choice: Choice, names: Sequence[str]) -> dict[str, Treatment]:
    treatments = all_treatments(choice.conf)
    unknown = [name for name in names if name not in treatments]
    if unknown:
        raise ValueError(f"there is no treatment {unknown[0]!r}; there are {', '.join(treatments)}")
    return {name: treatments[name] for name in names or treatments}


def _train(console: Console, what: str, due: Iterable[Job | None], workers: int, conf: Path) -> int:
    """Train what is due and return how many runs that were."""
    jobs = [job for job in due if job is not None]
    if jobs:
        with progress(console, what, len(jobs)) as advance:
            work_through(treat, jobs, workers, conf, lambda job: advance())
    return sum(len(job.due) for job in jobs)
