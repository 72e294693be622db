"""The command: train what is missing, and write the tables and the picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from experiments.corpus.workers import quiet, work_through
from experiments.scoreboard.commands import progress
from experiments.scoreboard.language_model.picture import picture
from experiments.scoreboard.language_model.report import document
from experiments.scoreboard.language_model.scoring import rows_of
from experiments.scoreboard.language_model.settings import load_settings
from experiments.scoreboard.language_model.shelf import Shelf
from experiments.scoreboard.language_model.training import train
from experiments.scoreboard.language_model.treatments import chosen

FILE = "language_models.md"


def language_model(
    split: str,
    names: Sequence[str],
    treatments: Sequence[str],
    seeds: Sequence[int],
    workers: int,
    folder: Path,
    docs: Path,
    conf: Path,
) -> int:
    """Train the settings under the treatments where that is missing, and tell what came of them.

    Args:
        split: ``"tune"``, ``"score"`` or ``"all"``.
        names: Only these settings.
        treatments: Only these treatments, and none at all.
        seeds: Of the runs.
        workers: Number of processes.
        folder: Of the results.
        docs: Folder of ``language_models.md`` and its picture.
        conf: The folder of the configs.

    Returns:
        The exit status: 1 if a run could not be trained.
    """
    console, started = Console(), time.monotonic()
    quiet()
    settings, applied = list(load_settings(conf, split, names).values()), chosen(treatments)
    shelf = Shelf(folder)
    due = shelf.missing(settings, applied, seeds)
    if due:
        with progress(console, "training", len(due)) as advance:
            work_through(train, due, workers, conf, lambda job: advance())
    rows = rows_of(shelf, settings, [one.name for one in applied], seeds)
    title = f"{'Chosen settings' if names else split.capitalize()}, seeds {' '.join(map(str, seeds))}"
    text = document(rows, title)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / FILE).write_text(text)
    picture(rows, f"Language models: {title}").savefig(docs / FILE.replace(".md", ".png"), dpi=120)
    console.print(Markdown(text))
    failed = [run for row in rows for runs in row.results.values() for run in runs if run.error]
    for run in failed:
        console.print(f"[red]{run.setting}/{run.seed} {run.treatment}[/red]: {run.error}", highlight=False)
    console.print(f"{len(due)} runs trained in {time.monotonic() - started:.0f} s. Written to {docs / FILE}.")
    return 1 if failed else 0
