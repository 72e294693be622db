"""All benchmarks: ``python -m experiments.bench`` prints the tables and writes them to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch

from experiments.bench import (
    clipping,
    delivery,
    guarding,
    importing,
    machine,
    memory,
    recording,
    scaling,
    stepping,
    training,
)

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
PARTS = ("clipping", "stepping", "training", "guarding", "memory", "scaling", "recording", "delivery", "importing")
HEAD = """# Benchmarks

Written by `make bench`. Every number is a ratio, or a difference, within one run: the variants take turns on one
thread, and each round gives one number; the tables show median and range over the rounds. A promise is kept if the
median keeps it. Unless it says otherwise, what is timed is the thread's processor time; with a GPU, time on the wall.
Python's garbage collector runs between rounds only.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a few seconds: numbers without meaning")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the markdown file; a picture goes beside it")
    parser.add_argument("--only", choices=PARTS, help="this one alone, which is printed and not written")
    options = parser.parse_args(arguments)
    _quiet()
    torch.set_num_threads(1)
    started = time.monotonic()
    sections = {
        "clipping": lambda: clipping.run(options.quick),
        "stepping": lambda: stepping.run(options.quick),
        "training": lambda: training.run(options.quick),
        "guarding": lambda: guarding.run(options.quick),
        "memory": lambda: memory.run(options.quick),
        "scaling": lambda: scaling.run(options.quick, options.output.with_suffix(".png")),
        "recording": lambda: recording.run(options.quick),
        "delivery": lambda: delivery.run(options.quick),
        "importing": lambda: importing.run(options.quick),
    }
    text = f"{HEAD}\n{machine.describe()}\n"
    sys.stdout.write(text)
    for name in [options.only] if options.only else PARTS:
        part = "\n" + sections[name]().markdown()
        sys.stdout.write(part)
        sys.stdout.flush()
        text += part
    if not options.only:
        options.output.write_text(text)
        sys.stdout.write(f"\nWritten to {options.output.name}")
    sys.stdout.write(f"\n{time.monotonic() - started:.0f} s\n")
    return 0


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "grad_callbacks", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
