"""The scoreboard: ``python -m experiments.scoreboard detect`` scores detectors, ``replay`` other thresholds of ours.

``repair`` scores remedies: what they make of the failing runs, and what harm they do to the healthy ones. ``paired``
sets the guard against each single remedy, at several rates, seeds and kinds of arithmetic. ``unseen`` tries
the default guard on runs whose settings are drawn by lot; on such runs, ``ablate`` tells what each number of the rules
is worth, and ``ablate-remedies`` what each part of the guard is. ``language_model`` trains small language models.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

DESCRIPTION = "Score detectors of vanishing, exploding and non-finite gradients, and remedies, on labelled runs."


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
    halves = "half of the corpus (default: score, for replay tune; all for a choice of scenarios)"
    common.add_argument("--split", choices=("score", "tune", "all"), help=halves)
    common.add_argument("--subset", choices=("quick",), help="only some 24 scenarios")
    common.add_argument("--scenarios", nargs="+", default=[], metavar="NAME", help="only these")
    common.add_argument("--unbiased", action="store_true", help="the same with networks that have no biases")
    common.add_argument("--seeds", nargs="+", default=[], type=_whole, metavar="SEED", help="default: 0 1 2; quick: 0")
    common.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    common.add_argument("--folder", type=Path, default=Path("recordings"), help="of recordings (default: %(default)s)")
    common.add_argument("--conf", type=Path, help="folder of configs (default: that of this repository)")

    detect = commands.add_parser("detect", parents=[common], help="record what is missing, and score all detectors")
    detect.add_argument("--fresh", action="store_true", help="record everything again")
    strict = "exit with 1 if our rules alarm on a healthy run or miss a failing one"
    detect.add_argument("--strict", action="store_true", help=strict)
    detect.add_argument("--picture", type=Path, help="default: scoreboard.png beside the recordings")
    detect.add_argument("--no-mlflow", action="store_true", help="log nothing")
    detect.set_defaults(run=_detect, default_split="score")

    replay = commands.add_parser("replay", parents=[common], help="score our rules on the recordings there are")
    replay.add_argument("--rules", type=_rules, metavar="JSON", help="""such as '[{"Vanishing": {"ratio": 1e-4}}]'""")
    replay.set_defaults(run=_replay, default_split="tune")

    repair = commands.add_parser("repair", parents=[common], help="treat what is missing, and score all remedies")
    repair.add_argument("--treatments", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    repair.add_argument("--repairs", type=Path, default=Path("repairs"), help="of outcomes (default: %(default)s)")
    repair.add_argument("--picture", type=Path, help="default: scoreboard.png beside the outcomes")
    repair.add_argument("--no-mlflow", action="store_true", help="log nothing")
    repair.set_defaults(run=_repair, default_split="score")

    paired = commands.add_parser("paired", help="the guard against each single remedy, on the same runs")
    paired.add_argument("--scenarios", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    paired.add_argument("--rates", nargs="+", default=[0.5, 1.0, 2.0, 4.0], type=float, help="default: 0.5 1 2 4")
    paired.add_argument("--seeds", nargs="+", default=list(range(20)), type=_whole, metavar="SEED", help="default: 20")
    arithmetic = "of torch's kernels: default, avx2, avx512 (default: the first two)"
    paired.add_argument("--arithmetics", nargs="+", default=["default", "avx2"], metavar="NAME", help=arithmetic)
    paired.add_argument("--treatments", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    paired.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    paired.add_argument("--folder", type=Path, default=Path("paired"), help="of outcomes (default: %(default)s)")
    paired.add_argument("--page", type=Path, help="write the table there, too")
    paired.set_defaults(run=_paired)

    unseen = commands.add_parser("unseen", help="try the default guard on runs that are drawn by lot")
    unseen.add_argument("--first", type=_whole, default=0, metavar="NUMBER", help="of the runs (default: %(default)s)")
    unseen.add_argument("--count", type=_positive, default=100, help="how many runs (default: %(default)s)")
    unseen.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    unseen.add_argument("--folder", type=Path, default=Path("unseen"), help="of outcomes (default: %(default)s)")
    unseen.set_defaults(run=_unseen)

    ablate = commands.add_parser("ablate", help="change each number of the rules, and leave out each condition")
    ablate.add_argument("--first", type=_whole, default=5000, metavar="NUMBER", help="drawn run (default: %(default)s)")
    ablate.add_argument("--count", type=_positive, default=200, help="how many runs (default: %(default)s)")
    ablate.add_argument("--only", default="", metavar="PART", help="numbers and conditions with this in their name")
    ablate.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    ablate.add_argument("--folder", type=Path, default=Path("drawn"), help="of recordings (default: %(default)s)")
    ablate.add_argument("--file", type=Path, help="of the result (default: ablation.json beside the recordings)")
    ablate.set_defaults(run=_ablate)

    parts = commands.add_parser("ablate-remedies", help="the guard without one part after the other, on such runs")
    parts.add_argument("--first", type=_whole, default=0, metavar="NUMBER", help="of the runs (default: %(default)s)")
    parts.add_argument("--count", type=_positive, default=80, help="how many runs (default: %(default)s)")
    parts.add_argument("--parts", nargs="+", default=[], metavar="NAME", help="only these parts and rivals")
    parts.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    parts.add_argument("--folder", type=Path, default=Path("ablated"), help="of outcomes (default: %(default)s)")
    parts.set_defaults(run=_ablate_remedies)

    language = commands.add_parser("language_model", help="train small language models, hurt and unhurt")
    language.add_argument("--split", choices=("score", "tune", "all"), default="score", help="default: %(default)s")
    language.add_argument("--settings", nargs="+", default=[], metavar="NAME", help="only these")
    language.add_argument("--treatments", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    language.add_argument("--seeds", nargs="+", default=[0, 1, 2], type=_whole, metavar="SEED", help="default: 0 1 2")
    language.add_argument("--workers", type=_positive, default=2, help="processes (default: %(default)s)")
    language.add_argument("--folder", type=Path, default=Path("language_models"), help="of results (%(default)s)")
    language.add_argument("--docs", type=Path, help="folder of the tables and the picture (default: that of results)")
    language.set_defaults(run=_language_model)
    return parser


def _detect(options: argparse.Namespace) -> int:
    from experiments.scoreboard.commands import detect

    choice = _choice(options)
    picture = _picture(options, options.folder)
    is_logged = not options.no_mlflow
    return detect(choice, options.folder, options.workers, options.fresh, picture, is_logged, options.strict)


def _replay(options: argparse.Namespace) -> int:
    from experiments.scoreboard.commands import replay

    return replay(_choice(options), options.folder, options.workers, options.rules)


def _repair(options: argparse.Namespace) -> int:
    from experiments.scoreboard.repair.command import repair

    choice = _choice(options)
    picture = _picture(options, options.repairs)
    is_logged = not options.no_mlflow
    return repair(choice, options.treatments, options.folder, options.repairs, options.workers, picture, is_logged)


def _paired(options: argparse.Namespace) -> int:
    from experiments.corpus import CONF
    from experiments.scoreboard.paired.command import Grid, paired

    options.folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(options.scenarios, options.rates, options.seeds, options.arithmetics, options.treatments)
    return paired(grid, options.folder, options.workers, CONF, options.page)


def _unseen(options: argparse.Namespace) -> int:
    from experiments.corpus import CONF
    from experiments.scoreboard.unseen.command import unseen

    options.folder.mkdir(parents=True, exist_ok=True)
    numbers = range(options.first, options.first + options.count)
    return unseen(numbers, options.folder, options.workers, CONF)


def _ablate(options: argparse.Namespace) -> int:
    from experiments.scoreboard.ablation.command import ablate

    page = options.folder / "ablation.md"
    numbers = range(options.first, options.first + options.count)
    file = options.file or page.with_suffix(".json")
    return ablate(numbers, options.folder, options.workers, options.only, file, page)


def _ablate_remedies(options: argparse.Namespace) -> int:
    from experiments.corpus import CONF
    from experiments.scoreboard.unseen.ablation_command import ablate

    options.folder.mkdir(parents=True, exist_ok=True)
    numbers = range(options.first, options.first + options.count)
    return ablate(numbers, options.parts, options.folder, options.workers, CONF)


def _language_model(options: argparse.Namespace) -> int:
    from experiments.corpus import CONF
    from experiments.scoreboard.language_model.command import language_model

    options.folder.mkdir(parents=True, exist_ok=True)
    chosen = (options.split, options.settings, options.treatments, [int(seed) for seed in options.seeds])
    return language_model(*chosen, options.workers, options.folder, options.docs or options.folder, CONF)


def _picture(options: argparse.Namespace, folder: Path) -> Path:
    """Make the folder of the results, and return the file of the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    picture: Path = options.picture or folder / "scoreboard.png"
    if not picture.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {picture.absolute().parent} for the picture")
    return picture


def _choice(options: argparse.Namespace) -> Any:
    from experiments.corpus.scenarios import UNBIASED
    from experiments.scoreboard.choosing import choose

    is_quick = options.subset == "quick"
    split = options.split or ("all" if is_quick or options.scenarios else options.default_split)
    conf = None if options.conf is None else options.conf.absolute()
    names = [name + UNBIASED * options.unbiased for name in options.scenarios]
    return choose(split, is_quick, names, options.seeds, conf, options.unbiased)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"a whole number from 0 on is needed, not {text!r}")
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
