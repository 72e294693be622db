"""What a journal survives: ``python -m experiments.reliability`` tries every fault and writes docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"  # seconds: a server that is slow or silent must not take minutes
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

from experiments.reliability import long_run
from experiments.reliability import rows as all_rows
from experiments.reliability.report import markdown, summary
from experiments.reliability.results import Results
from experiments.reliability.training import quiet
from experiments.reliability.trials import try_all
from experiments.reliability.workplace import Workplace

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "docs" / "reliability.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults; the exit status is 1 if one was not survived."""
    options = _parser().parse_args(arguments)
    chosen = [row for row in all_rows.ROWS if options.only in (None, row.group, row.name)]
    if not chosen:
        names = sorted({row.group for row in all_rows.ROWS}) + [row.name for row in all_rows.ROWS]
        sys.stderr.write(f"no row or group {options.only!r}; there are: {', '.join(names)}\n")
        return 2
    quiet()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers and children must not stay behind
    results = {row.group: Results(options.results, row.group, options.fresh) for row in chosen}
    place, before = Workplace(options.old_server), Path.cwd()
    home = place.folder / "home"
    home.mkdir()
    os.environ |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home)}
    os.environ |= {"XDG_DATA_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(place.folder)  # an SQLite store without a place for artifacts puts them into the working folder
    try:
        if options.long:
            sys.stdout.write(long_run.run(place, options.results, options.long))
            return 0
        if not options.report:
            try_all(chosen, place, results, options.subset == "quick", options.case)
    finally:
        os.chdir(before)
        place.close()
        for result in results.values():
            result.save()
    is_quick = options.subset == "quick"
    outcomes = [(row, [results[row.group].of(row.name).get(name) for name in row.chosen(is_quick)]) for row in chosen]
    kept = [(row, [case for case in cases if case is not None]) for row, cases in outcomes]
    if options.only is None:
        options.output.write_text(markdown(kept, options.results, is_quick))
        sys.stdout.write(f"Written to {options.output}\n")
    return 0 if all(summary(row, cases).is_survived for row, cases in kept) else 1


def _path(text: str) -> Path:
    return Path(text).resolve()  # the working folder changes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.reliability", description=main.__doc__)
    parser.add_argument("--subset", choices=("quick", "all"), default="all", help="quick: a part of the cases, minutes")
    parser.add_argument("--only", metavar="ROW", help="this row or group of rows alone, which is printed, not written")
    parser.add_argument("--case", help="this case of the row alone, again")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier calls")
    parser.add_argument("--results", type=_path, default=ROOT / "reliability", help="folder of the results")
    parser.add_argument("--output", type=_path, default=OUTPUT, help="the markdown file")
    parser.add_argument("--report", action="store_true", help="try nothing, and write what earlier calls have found")
    parser.add_argument(
        "--long",
        type=int,
        nargs="?",
        const=100_000,
        metavar="STEPS",
        help="the long training instead; minutes to hours",
    )
    parser.add_argument("--old-server", metavar="PYTHON", help="an interpreter with the oldest supported MLflow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
