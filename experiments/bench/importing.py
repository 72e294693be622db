"""What importing the package costs beyond what it is built on."""

from __future__ import annotations

import os
import subprocess
import sys

from experiments.bench.table import Row, Section
from experiments.bench.timing import interleave, ratio

CASES = (
    ("core", "from grad_callbacks import Engine", "import torch", 1.15),
    ("callbacks", "from grad_callbacks import GradientGuard", "import lightning.pytorch", 1.1),
)

METHOD = """Each import runs in a fresh Python process; what is timed is the processor time of that process, user and
system, with bytecode compiled beforehand. The two of a case take turns; a round is one process of each."""


def run(quick: bool) -> Section:
    """Time both imports against what they are built on."""
    rounds, warmup = (1, 0) if quick else (9, 1)
    rows = []
    for name, what, against, promise in CASES:
        times = interleave({what: what, against: against}, processor_seconds, rounds, steps=1, warmup=warmup)
        rows.append(Row(name, f"`{what}`", f"`{against}`", ratio(times[what], times[against]), promise))
    return Section("Importing the package", METHOD, rows)


def processor_seconds(statement: str) -> float:
    """Return the processor time of a fresh Python process that runs a statement."""
    # Bytecode is kept, as of an installed package: compiling the sources each time would count for one side only.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, env=kept)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
