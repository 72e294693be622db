"""MLflow servers that can be killed, frozen and restarted, and what runs hold on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Run

from tests.support.processes import wait_until, without_a_store

NO_SERVER = "http://127.0.0.1:9"  # an address at which no server listens


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
                command, env=without_a_store() | store | light, start_new_session=True, stdout=output, stderr=output
            )
        assert wait_until(self._answers, 120), (self.folder / "server.log").read_text()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        try:
            urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            return False
        return True

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
