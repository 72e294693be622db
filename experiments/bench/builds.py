"""Older builds of the plugin beside the present one, each in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOW = "now"
_RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # not in the folder of the script


class Worker:
    """A process that times steps with one build.

    Args:
        folder: Holds the build.
    """

    def __init__(self, folder: Path) -> None:
        # The plugin alone: the packages beside it are those of this environment.
        settings = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(ROOT / "experiments" / "bench" / "step_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, **settings},
        )

    def ask(self, *question: Any) -> Any:
        """Call a function of the worker.

        Raises:
            RuntimeError: If the worker has failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker has failed at {question}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def workers(commits: Sequence[str]) -> Iterator[dict[str, Worker]]:
    """Yield a worker for the present build, and one for each commit that this repository knows."""
    with ExitStack() as stack:
        found = {NOW: Worker(ROOT)}
        for commit in commits:
            archive = subprocess.run(
                ["git", "archive", commit, "grad_callbacks"], cwd=ROOT, capture_output=True, check=False
            )
            if archive.returncode == 0:  # else a checkout without its history
                folder = stack.enter_context(TemporaryDirectory())
                with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                    files.extractall(folder, filter="data")
                found[commit] = Worker(Path(folder))
        for worker in found.values():
            stack.callback(worker.close)
        yield found
