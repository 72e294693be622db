"""MLflow servers that come and go, and what is on them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Run

NOBODY = "http://127.0.0.1:9"  # where no server is


class Server:
    """A light ``mlflow server`` on loopback with a store of its own, that can be killed, frozen and started again."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder = folder
        self.store = store or f"sqlite:///{folder}/mlflow.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        destination = str(self.folder / "artifacts")
        command = [sys.executable, "-m", "mlflow", "server", "--artifacts-destination", destination]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        # The store's address may hold a password: in the environment `ps` does not show it.
        store = {"MLFLOW_BACKEND_STORE_URI": self.store}
        light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, env=_environment() | store | light, start_new_session=True, stdout=output, stderr=output
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise TimeoutError("the server did not start")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


ZYGOTE = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import grad_callbacks.tracking, tests.tracking.training, mlflow.store.tracking.sqlalchemy_store
import git, mlflow.tracking.context.registry
for line in sys.stdin:
    task = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(task["cwd"])
        os.environ.update(task["environment"])
        break
    print(child, flush=True)
else:
    os._exit(0)
exec(compile(task["code"], "training", "exec"), {"__name__": "__main__"})
"""


class Nursery:
    """Starts processes that have imported everything: imports take longer than the trainings of these tests.

    A process runs its code as a script of its own, and ends like one.
    """

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[2]
        self._children: list[Child] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            env=_environment() | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, code: str, cwd: Path, **environment: str) -> Child:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output = cwd / f"output-{time.monotonic_ns()}"
        task = {"code": code, "cwd": str(cwd), "output": str(output), "environment": environment}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        child = Child(int(self._process.stdout.readline()), output)
        self._children.append(child)
        return child

    def close(self) -> None:
        for child in self._children:
            if not child.has_ended():  # left behind by a test that failed
                child.send(signal.SIGKILL)
        self._process.kill()
        self._process.wait()


class Child:
    """A process of a :class:`Nursery`."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid, self._output = pid, output

    @property
    def said(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        process = Path(f"/proc/{self.pid}")
        try:
            is_dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody waits for it
            return is_dead and len(list((process / "task").iterdir())) == 1  # its threads die last, and free its locks
        except OSError:
            return True

    def wait(self, seconds: float = 60.0) -> None:
        assert wait_until(self.has_ended, seconds), f"it goes on: {self.said}"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until it holds; False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def the_run(client: MlflowClient, experiment: str) -> Run:
    """The only run of an experiment."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None, "the experiment was not made"
    [run] = client.search_runs([found.experiment_id])
    return run


def steps_of(client: MlflowClient, run_id: str, key: str) -> list[int]:
    """All steps that a metric was logged at, in order; one that was logged twice comes twice."""
    return sorted(metric.step for metric in client.get_metric_history(run_id, key))


def artifacts_of(client: MlflowClient, run_id: str) -> list[str]:
    """The paths of all artifacts."""

    def below(path: str | None) -> Iterator[str]:
        for file in client.list_artifacts(run_id, path):
            yield from below(file.path) if file.is_dir else [file.path]

    return sorted(below(None))


def _environment() -> dict[str, str]:
    """This process's, without the store that MLflow leaves in it."""
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
