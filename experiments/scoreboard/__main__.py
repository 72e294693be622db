"""The scoreboard: ``python -m experiments.scoreboard detect`` scores detectors, ``replay`` other thresholds of ours."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

DESCRIPTION = "Score detectors of vanishing, exploding and non-finite gradients on the corpus of labelled runs."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    from grad_callbacks.tracking import StoreError

    try:
        status: int = options.run(options)
    except (StoreError, ValueError, OSError) as error:
        sys.stderr.write(f"experiments.scoreboard {options.command}: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from here\n")
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.scoreboard", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--split", choices=("score", "tune", "all"), help="half of the corpus (default: score; replay: tune)"
    )
    common.add_argument("--subset", choices=("quick",), help="some 24 scenarios of the split, or of all")
    common.add_argument("--scenarios", nargs="+", metavar="NAME", help="these only")
    common.add_argument("--seeds", nargs="+", type=_seed, metavar="SEED", help="default: 0 1 2; quick: 0")
    common.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    common.add_argument("--folder", type=Path, default=Path("recordings"), help="of recordings (default: %(default)s)")
    common.add_argument("--conf", type=Path, help=argparse.SUPPRESS)

    detect = commands.add_parser("detect", parents=[common], help="record what is missing, and score all detectors")
    detect.add_argument("--fresh", action="store_true", help="record everything again")
    detect.set_defaults(run=_detect)

    replay = commands.add_parser("replay", parents=[common], help="score our rules on the recordings there are")
    replay.add_argument(
        "--rules", type=_rules, metavar="JSON", help='such as \'[{"Vanishing": {"ratio": 1e-4}}, "Exploding"]\''
    )
    replay.set_defaults(run=_replay)
    return parser


def _detect(options: argparse.Namespace) -> int:
    from experiments.corpus import describe, missing, record_all, with_references
    from experiments.scoreboard.detectors import Ours

    started = time.monotonic()
    scenarios, chosen, conf = _chosen(options, "score")
    jobs = describe(with_references(chosen.values(), scenarios).values(), options.seeds, options.folder, conf)
    due = jobs if options.fresh else missing(jobs)
    console = _console()
    failures = {}
    if due:
        with _progress(console, "recording", len(due)) as advance:
            failures = record_all(due, options.workers, conf, lambda job, error: advance())
    for name, error in failures.items():
        console.print(f"[red]{name} crashed[/red]: {error}", highlight=False, soft_wrap=True)
    paths = [job.path for job in jobs if job.path.exists()]
    _score(options, paths, [Ours()], scenarios, chosen, console)
    console.print(f"{time.monotonic() - started:.0f} s, {len(due)} of {len(jobs)} runs recorded now.")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from experiments.scoreboard.detectors import Ours, build_rules

    scenarios, chosen, _ = _chosen(options, "tune")
    detectors = [Ours()]
    if options.rules is not None:
        build_rules(options.rules)  # a mistake in them is told before anything is read
        detectors.append(Ours(tuple(options.rules), "ours, changed"))
    names = set(chosen) | {scenario.reference for scenario in chosen.values()}
    _score(options, _latest(options.folder, names, options.seeds), detectors, scenarios, chosen, _console())
    return 0


def _score(
    options: argparse.Namespace,
    paths: Sequence[Path],
    detectors: Sequence[Any],
    scenarios: Mapping[str, Any],
    chosen: Mapping[str, Any],
    console: Any,
) -> None:
    from experiments.corpus import label_runs
    from experiments.scoreboard.judging import judge_all
    from experiments.scoreboard.scoring import score
    from experiments.scoreboard.table import score_table, tell_mistakes, tell_runs

    if not paths:
        raise ValueError(f"there are no recordings of these runs in {options.folder}: make them with detect")
    with _progress(console, "judging", len(paths)) as advance:
        judged = judge_all(paths, detectors, options.workers, advance)
    labelled = label_runs(scenarios, {(run.scenario, run.seed): run.quality for run in judged})
    scores = [score(detector.name, judged, chosen, labelled.labels) for detector in detectors]
    tell_runs(console, labelled, chosen)
    for one in scores:
        if one.detector.startswith("ours"):
            console.rule(one.detector)
            tell_mistakes(console, one)
    console.print(score_table(scores))
    stale = sum(run.is_stale for run in judged)
    if stale:
        console.print(f"{stale} runs were recorded with other code of the plugin: their causes are of then (--fresh).")


def _chosen(options: argparse.Namespace, split: str) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Return all scenarios, those that the options choose, and the folder of configs; fill in the seeds."""
    from experiments.corpus import CONF, load_scenarios, quick

    conf = options.conf or CONF
    scenarios = load_scenarios(conf)
    split = options.split or ("all" if options.subset or options.scenarios else split)
    options.seeds = options.seeds or ([0] if options.subset == "quick" else [0, 1, 2])
    found = [scenario for scenario in scenarios.values() if split in ("all", scenario.split)]
    if options.scenarios:
        unknown = sorted(set(options.scenarios) - set(scenarios))
        if unknown:
            raise ValueError(f"there is no scenario {unknown[0]!r} in {conf}/experiment/corpus")
        found = [scenario for scenario in found if scenario.name in options.scenarios]
    if options.subset == "quick":
        found = quick(found)
    return scenarios, {scenario.name: scenario for scenario in found}, conf


def _latest(folder: Path, names: set[str], seeds: Sequence[int]) -> list[Path]:
    """Return the newest recording of each scenario and seed."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime):
        name, seed, _ = path.stem.rsplit("-", 2)
        if name in names and int(seed) in seeds:
            found[name, seed] = path
    return [found[run] for run in sorted(found)]


def _console() -> Any:
    from rich.console import Console

    return Console()


@contextmanager
def _progress(console: Any, what: str, total: int) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 on, not {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, not {text!r}")
    return int(text)


def _rules(text: str) -> list[Any]:
    try:
        rules = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"this is no JSON: {error}") from None
    if not isinstance(rules, list):
        raise argparse.ArgumentTypeError(f"a list of rules is needed, not {text!r}")
    return rules


if __name__ == "__main__":
    sys.exit(main())
