"""The syllabus: ``python -m experiments.syllabus`` trains what is missing and writes docs/syllabus.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

from experiments.corpus import CONF
from experiments.corpus.workers import quiet, work_through
from experiments.syllabus.claims import SEEDS, all_settings
from experiments.syllabus.document import document
from experiments.syllabus.figure import picture
from experiments.syllabus.judging import collect, judge
from experiments.syllabus.runs import Job, jobs, train
from grad_callbacks.tracking import StoreError, default_store, prepare_store

DOCS = Path(__file__).resolve().parents[2] / "docs"
SUBSETS = {"all": SEEDS, "quick": 1}  # and their seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, write the document and its picture, and log the runs to MLflow.

    A second call goes on where the first was stopped: a run's outcome is a file in the folder.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.syllabus", description=main.__doc__)
    parser.add_argument("--subset", choices=list(SUBSETS), default="all", help="quick: three problems, not into docs/")
    parser.add_argument("--seeds", type=_positive, help="seeds of each setting; default 5, of the quick subset 1")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count() or 1, help="processes; default: every core")
    parser.add_argument("--folder", type=Path, default=Path("syllabus"), help="of the outcomes; default ./syllabus")
    parser.add_argument("--output", type=Path, help="folder of syllabus.md and .png; default docs/, if quick --folder")
    parser.add_argument("--no-mlflow", action="store_true", help="log nothing to MLflow")
    options = parser.parse_args(arguments)
    quiet()
    try:
        client = None if options.no_mlflow else prepare_store(default_store())
        wanted = jobs(all_settings(options.subset), range(options.seeds or SUBSETS[options.subset]), options.folder)
        _train(wanted, options.workers)
    except (StoreError, OSError) as error:
        sys.stderr.write(f"syllabus: {error}\n")
        return 2
    results = collect(wanted)
    drawn = picture(results)
    output: Path = options.output or (DOCS if options.subset == "all" else options.folder)
    output.mkdir(parents=True, exist_ok=True)
    drawn.savefig(output / "syllabus.png", dpi=130)
    (output / "syllabus.md").write_text(document(results, "syllabus.png"))
    for setting in results:
        sys.stdout.write(f"{setting.name}: quality {results[setting].quality:.2f}, {judge(setting, results)}\n")
    if client is not None:
        from experiments.syllabus.tracking import log_syllabus

        sys.stdout.write(f"MLflow run {log_syllabus(client, results, output / 'syllabus.md', drawn)}\n")
    sys.stdout.write(f"Written to {output / 'syllabus.md'}\n")
    return 0


def _train(wanted: Sequence[Job], workers: int) -> None:
    due = [job for job in wanted if not job.path.exists()]
    started, done = time.monotonic(), 0

    def tell(job: Job) -> None:
        nonlocal done
        done += 1
        minutes = (time.monotonic() - started) / 60
        sys.stdout.write(f"{done} of {len(due)}, {minutes:.1f} minutes: {job.setting.name}, seed {job.seed}\n")
        sys.stdout.flush()

    work_through(train, due, workers, CONF, tell)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
