"""The papers: ``python -m experiments.papers`` trains what is missing and writes docs/papers.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

from experiments.corpus import CONF
from experiments.corpus.workers import quiet, work_through
from experiments.papers.catalogue import PAPERS
from experiments.papers.report import report
from experiments.papers.runs import Job, collect, jobs, train

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "papers.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and write the table; return 1 if a direction is not seen.

    A second call goes on where the first was stopped: a run's outcome is a file in the folder.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.papers", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PAPERS), help="these papers, printed and not written")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 101), metavar="N", help="seeds; default 3")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: every core")
    parser.add_argument("--folder", type=Path, default=Path("papers"), help="of the outcomes; default ./papers")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the markdown file")
    options = parser.parse_args(arguments)
    quiet()
    wanted = jobs(options.only or PAPERS, range(options.seeds), options.folder)
    due = [job for job in wanted if not job.path.exists()]
    try:
        work_through(train, due, options.workers, CONF, _tell)
    except OSError as error:
        sys.stderr.write(f"papers: {error}\n")
        return 2
    results = collect(wanted)
    text = report(results)
    if options.only:
        sys.stdout.write(text)
    else:
        options.output.write_text(text)
    return int(not all(PAPERS[name].direction(found) for name, found in results.items()))


def _tell(job: Job) -> None:
    sys.stdout.write(f"{job.paper}, {job.arm}, seed {job.seed}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
