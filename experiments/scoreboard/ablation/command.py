"""The command: record what is missing, judge the runs again under each change, and write what that does."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.corpus import CONF, Recording, rules_key
from experiments.corpus.workers import pool, quiet, work_through
from experiments.scoreboard.ablation.changing import Change, all_changes
from experiments.scoreboard.ablation.drawn import DrawnRun, labels, missing, record
from experiments.scoreboard.ablation.effects import Effect, as_json, as_markdown, by_subject
from experiments.scoreboard.ablation.judging import Said, judge, judge_changed
from experiments.scoreboard.commands import progress


def ablate(numbers: range, folder: Path, workers: int, only: str, file: Path, page: Path) -> int:
    """Judge drawn runs under every change of the rules, and write two files.

    Args:
        numbers: Of the drawn runs.
        folder: Of their recordings, and of what was judged already: the same command goes on from there.
        workers: Number of processes.
        only: Only numbers and conditions whose name has this part; empty for all.
        file: Of the effects as JSON.
        page: Of the effects as Markdown.

    Raises:
        ValueError: If no run could be recorded or labelled.
    """
    console = Console()
    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    runs = [DrawnRun(number, folder) for number in numbers]
    due = missing(runs)
    if due:
        with progress(console, "recording", len(due)) as advance:
            work_through(record, due, workers, CONF, lambda run: advance())
    return _measure(runs, folder, workers, only, file, page, console)


def _measure(
    runs: Sequence[DrawnRun], folder: Path, workers: int, only: str, file: Path, page: Path, console: Console
) -> int:
    recordings = {run.number: Recording.read(run.path) for run in runs if run.path.exists()}
    labelled = labels(runs, recordings)
    if not labelled:
        raise ValueError(f"no drawn run in {folder} could be labelled: draw more of them")
    chosen = [run for run in runs if run.number in labelled]
    paths, given = tuple(run.path for run in chosen), [labelled[run.number] for run in chosen]
    changes = [change for change in all_changes() if only in change.subject]
    usual = judge(paths)
    found: dict[Change, Effect | None] = {}
    with progress(console, "judging", len(changes)) as advance:
        for change, said in _judged(paths, changes, folder, workers):
            found[change] = None if said is None else Effect.of(usual, said, given)
            advance()
    effects, counts = by_subject(found), dict(sorted(Counter(given).items()))
    file.write_text(as_json(effects, counts))
    page.write_text(as_markdown(effects, counts))
    seen = Counter(label for label, said in zip(given, usual, strict=True) if said)
    told = ", ".join(f"{seen[label]} of {count} {label}" for label, count in counts.items())
    console.print(f"An alert is raised in {told} runs. Written: {page} and {file}.", highlight=False, soft_wrap=True)
    return 0


def _judged(
    paths: tuple[Path, ...], changes: Sequence[Change], folder: Path, workers: int
) -> Iterator[tuple[Change, dict[int, Said] | None]]:
    """Judge the runs under each change; what was judged before, by the same code on the same runs, is read."""
    about = json.dumps([rules_key(), *[path.name for path in paths]])
    kept = folder / f"judged-{hashlib.sha256(about.encode()).hexdigest()[:12]}.jsonl"
    known = dict(map(json.loads, kept.read_text().splitlines())) if kept.exists() else {}
    due = [change for change in changes if _name(change) not in known]
    for change in changes:
        if change not in due:
            yield change, _places(known[_name(change)])
    with kept.open("a") as lines, ExitStack() as stack:
        is_alone = workers == 1 or not due
        judged = map if is_alone else stack.enter_context(pool(workers)).map
        for change, said in zip(due, judged(judge_changed, [(paths, change) for change in due]), strict=True):
            lines.write(json.dumps([_name(change), said]) + "\n")
            lines.flush()
            yield change, said


def _name(change: Change) -> str:
    return f"{change.module}: {change.subject} {change.what}"


def _places(said: dict[str, list[list[Any]]] | None) -> dict[int, Said] | None:
    """Undo what JSON does to the places and alerts."""
    if said is None:
        return None
    return {int(place): [(kind, step) for kind, step in alerts] for place, alerts in said.items()}
