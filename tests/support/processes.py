"""Processes that need not import anything: imports take longer than the trainings of most tests."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = [
    "torch",
    "lightning.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking.context.registry",
    "git",
    "hydra.main",
    "experiments.sweep",
    "experiments.tasks",
    "tests.support.tracked_training",
]
RUN = """
import runpy, sys
sys.argv = {argv}
runpy.{function}(sys.argv[0], run_name="__main__"{more})
"""


class ForkServer:
    """Starts processes as forks of one that has imported everything.

    A process runs its code as a script of its own, and ends like one.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.support.processes import serve; serve()"],
            env=without_a_store() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, code: str, cwd: Path, **environment: str) -> Child:
        """Start what ``python -c code`` would."""
        output = cwd / f"output-{time.monotonic_ns()}"
        task = {"code": code, "cwd": str(cwd), "output": str(output), "environment": environment}
        child = Child(self.ask(task), output, self)
        self._children.append(child)
        return child

    def start_module(self, module: str, *arguments: str, cwd: Path, **environment: str) -> Child:
        """Start what ``python -m module arguments`` would."""
        return self.start(
            RUN.format(argv=[module, *arguments], function="run_module", more=", alter_sys=True"), cwd, **environment
        )

    def start_script(self, script: Path, *arguments: str, cwd: Path, **environment: str) -> Child:
        """Start what ``python script arguments`` would."""
        code = RUN.format(argv=[str(script), *arguments], function="run_path", more="")
        return self.start(code, cwd, **environment)

    def ask(self, task: dict[str, object]) -> int:
        """Ask the first process for something: a number is the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End them all."""
        for child in self._children:
            if not child.has_ended():  # left behind by a test that failed
                child.send(signal.SIGKILL)
        self._process.kill()
        self._process.wait()


class Child:
    """A process of a :class:`ForkServer`."""

    def __init__(self, pid: int, output: Path, fork_server: ForkServer) -> None:
        self.pid, self._output, self._server = pid, output, fork_server
        self._status: int | None = None

    @property
    def said(self) -> str:
        """What it has written to its standard output and its standard error."""
        return self._output.read_text() if self._output.exists() else ""

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """True if nothing of it is left but its exit status."""
        process = Path(f"/proc/{self.pid}")
        try:
            is_dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody waits for it
            return is_dead and len(list((process / "task").iterdir())) == 1  # its threads die last, and free its locks
        except OSError:
            return True

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end; return its exit status, below 0 if a signal has killed it."""
        assert wait_until(self.has_ended, seconds), f"it goes on: {self.said}"
        if self._status is None:
            self._status = self._server.ask({"ended": self.pid})
        return self._status


def without_a_store() -> dict[str, str]:
    """This process's environment, without the store that MLflow leaves in it."""
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until it holds; False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve() -> None:
    """Import everything, and fork for each line of standard input."""
    for module in IMPORTED:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is shared is not copied only to be looked through at the end of each process
    for line in sys.stdin:
        task = json.loads(line)
        if "ended" in task:
            _answer(os.waitstatus_to_exitcode(os.waitpid(task["ended"], 0)[1]))
            continue
        child = os.fork()
        if child:
            _answer(child)
            continue
        sys.stdin.close()
        output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(task["cwd"])
        os.environ.update(task["environment"])
        exec(compile(task["code"], "training", "exec"), {"__name__": "__main__"})
        return
    os._exit(0)
