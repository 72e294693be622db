"""Runs the tests of a training's outcome under each rounding that this processor has.

``python -m tests.support.numerics [PYTEST ARGUMENTS]`` tries each of PyTorch's instruction sets, with one and with two
threads: sums are added up in another order in each, so that trainings end elsewhere. ``NUMERICS_THREADS=1`` leaves two
threads out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

CAPABILITIES = ("default", "avx2", "avx512")  # of ATEN_CPU_CAPABILITY, each needs a newer processor than the last
THREADS = tuple(map(int, os.environ.get("NUMERICS_THREADS", "1 2").split()))


def possible() -> tuple[str, ...]:
    """Those that this processor can run; a better one than it has would end in an illegal instruction."""
    os.environ.pop("ATEN_CPU_CAPABILITY", None)  # it would hide better ones
    best = torch.backends.cpu.get_cpu_capability().lower()
    return CAPABILITIES[: CAPABILITIES.index(best) + 1] if best in CAPABILITIES else CAPABILITIES[:1]


def main() -> int:
    """Run them all, say how each ended, and return 1 if one failed."""
    results = {}
    for capability in possible():
        for threads in THREADS:
            chosen = {"ATEN_CPU_CAPABILITY": capability, "TEST_TORCH_THREADS": str(threads)}
            environment = os.environ | chosen | {"OMP_WAIT_POLICY": "passive"}  # threads that wait let others work
            print(" ".join(f"{name}={value}" for name, value in chosen.items()), flush=True)  # noqa: T201
            processes = max(1, min(os.cpu_count() or 1, 4) // threads)
            command = [sys.executable, "-m", "pytest", "-m", "numerics", "-n", str(processes), "--dist", "worksteal"]
            started = time.monotonic()
            ended = subprocess.run([*command, *sys.argv[1:]], env=environment, check=False).returncode
            passed = "passed" if ended == 0 else "FAILED"
            results[capability, threads] = f"{passed} in {time.monotonic() - started:.0f} s"
    for (capability, threads), result in results.items():
        print(f"{capability:8} {threads} thread(s): {result}")  # noqa: T201
    for capability in CAPABILITIES[len(possible()) :]:
        print(f"{capability:8} left out: this processor does not have it")  # noqa: T201
    return int(any("FAILED" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
