"""All optimizers: ``python -m experiments.optimizers`` prints the table and writes it to docs/optimizers.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch

from experiments.optimizers.catalogue import PACKAGES, catalogue
from experiments.optimizers.judging import Verdict, judge
from experiments.optimizers.report import markdown

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "optimizers.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all optimizers that are installed; return 1 if one is changed, or ends, through a callback."""
    parser = argparse.ArgumentParser(prog="python -m experiments.optimizers", description=main.__doc__)
    parser.add_argument("--packages", nargs="+", choices=list(PACKAGES), help="these only, printed and not written")
    parser.add_argument("--match", default="", help="optimizers with this in their name, printed and not written")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the markdown file")
    options = parser.parse_args(arguments)
    _quiet()
    torch.set_num_threads(1)
    verdicts: dict[str, Verdict] = {}
    for name, make in catalogue(options.packages).items():
        if options.match.lower() in name.lower():
            verdicts[name] = judge(make)
            sys.stdout.write(f"{name}: {_line(verdicts[name])}\n")
            sys.stdout.flush()
    if not options.packages and not options.match:
        options.output.write_text(markdown(verdicts))
    return int(not _all_kept(verdicts))


def _all_kept(verdicts: Mapping[str, Verdict]) -> bool:
    return all(verdict.kept for verdict in verdicts.values())


def _line(verdict: Verdict) -> str:
    if verdict.untried:
        return f"not tried: {verdict.untried}"
    losses = ", ".join(f"{fault} {alone:.2f} -> {guarded:.2f}" for fault, (alone, guarded, _) in verdict.rows.items())
    wrong = [f"changed by {how}" for how in verdict.changed] + [f"ended: {what}" for what in verdict.ended]
    return "; ".join([losses, *wrong])


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
