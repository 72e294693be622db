"""The commands: record what is missing, judge, score, print, draw and log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.corpus import describe, label_runs, missing, record_all
from experiments.corpus.workers import quiet
from experiments.scoreboard.choosing import Choice, latest
from experiments.scoreboard.detectors import Detector, Ours, all_detectors, build_rules
from experiments.scoreboard.judging import judge_all
from experiments.scoreboard.lead import lead_picture, lead_table
from experiments.scoreboard.picture import score_picture
from experiments.scoreboard.scoring import Score, score
from experiments.scoreboard.table import score_table, tell_mistakes, tell_runs
from experiments.scoreboard.tracking import EXPERIMENT, log_scores
from grad_callbacks.tracking import default_store, prepare_store

LEAD = "lead.png"  # beside the picture of the scores


def detect(
    choice: Choice, folder: Path, workers: int, fresh: bool, picture: Path, is_logged: bool, strict: bool = False
) -> int:
    """Record what is missing, and score all detectors.

    Args:
        choice: The runs.
        folder: Of the recordings.
        workers: Number of processes.
        fresh: Record everything again.
        picture: The file of the picture; that of lead and delay lies beside it.
        is_logged: Log to MLflow as well.
        strict: Every mistake of our rules counts as a failure.

    Returns:
        The exit status: 1 if a run has crashed, or where ``strict`` if our rules were wrong about one.
    """
    console, started = Console(), time.monotonic()
    quiet()
    client = prepare_store(default_store()) if is_logged else None  # a store that cannot be used is told at once
    jobs = describe(choice.needed.values(), choice.seeds, folder, choice.conf)
    due = jobs if fresh else missing(jobs)
    failures: dict[str, str] = {}
    if due:
        with progress(console, "recording", len(due)) as advance:
            failures = record_all(due, workers, choice.conf, lambda job, error: advance())
    detectors = all_detectors()
    scores = _score([job.path for job in jobs if job.path.exists()], detectors, choice, workers, console)
    for name, error in failures.items():
        console.print(f"[red]{name} crashed[/red]: {error}", highlight=False, soft_wrap=True)
    figure = score_picture(scores, f"Detection: {choice.title}")
    figure.savefig(picture, dpi=150)
    lead_picture(scores, f"When it is seen: {choice.title}").savefig(picture.with_name(LEAD), dpi=150)
    if client is not None:
        log_scores(client, choice, detectors, scores, figure)
        console.print(f"Logged to MLflow, experiment {EXPERIMENT!r}.")
    console.print(f"Drawn in {picture} and {LEAD} beside it.")
    console.print(f"{len(due)} of {len(jobs)} runs recorded in {time.monotonic() - started:.0f} s.")
    mistakes = scores[0].named("missed", "wrong kind", "false alarm") if strict else []
    return 1 if failures or mistakes else 0


def replay(choice: Choice, folder: Path, workers: int, rules: Sequence[Any] | None) -> int:
    """Score our rules, with their defaults and as ``rules`` say, on the recordings there are."""
    detectors: list[Detector] = [Ours()]
    if rules is not None:
        build_rules(rules)  # a mistake in them is told before anything is read
        detectors.append(Ours(tuple(rules), "ours, changed"))
    _score(latest(folder, choice), detectors, choice, workers, Console())
    return 0


def _score(
    paths: Sequence[Path], detectors: Sequence[Detector], choice: Choice, workers: int, console: Console
) -> list[Score]:
    if not paths:
        raise ValueError("there are no recordings of these runs: make them with detect")
    with progress(console, "judging", len(paths)) as advance:
        judged = judge_all(paths, detectors, workers, advance)
    labelled = label_runs(choice.needed, {(run.scenario, run.seed): run.quality for run in judged})
    scores = [score(detector.name, judged, choice.scenarios, labelled.labels) for detector in detectors]
    tell_runs(console, labelled, choice.scenarios)
    for one in scores:
        if one.detector.startswith("ours"):
            console.rule(one.detector)
            tell_mistakes(console, one)
    console.print(score_table(scores))
    console.print(lead_table(scores))
    stale = sum(run.is_stale for run in judged)
    if stale:
        console.print(
            f"{stale} of {len(judged)} runs were recorded with other code of the plugin: their causes are of that "
            "time (--fresh records them again)."
        )
    return scores


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far ``total`` of something are; the block calls what it is given after each."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)

        def advance() -> None:
            nonlocal done
            done += 1
            progress.advance(task)
            if not console.is_terminal and done % 20 == 0:
                console.print(f"{what} {done} of {total}")

        yield advance
