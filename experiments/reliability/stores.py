"""Stores that are read and emptied with plain SQL, so that nothing of the package judges itself."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.request import url2pathname, urlopen

from experiments.reliability.truth import Found, Item, number
from grad_callbacks.tracking.server import free_port

START_TIMEOUT = 120  # seconds to wait for a server's first answer
RUN_TABLES = ("metrics", "latest_metrics", "params", "tags", "inputs", "datasets", "input_tags", "runs")


class Store:
    """An SQLite file.

    Args:
        folder: Where the file is; artifacts go below it.
        template: An empty store, which is copied; None lets MLflow make the tables.

    Attributes:
        uri: The tracking address.
    """

    def __init__(self, folder: Path, template: Path | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "mlflow.db"
        if template is not None:
            shutil.copy(template, self.file)
        self.uri = f"sqlite:///{self.file}"
        self.artifacts = folder / "artifacts"

    def empty(self) -> None:
        """Delete all runs, experiments and artifacts."""
        with closing(sqlite3.connect(self.file, timeout=60)) as connection, connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table in RUN_TABLES:
                if table in tables:
                    connection.execute(f"DELETE FROM {table}")
            connection.execute("DELETE FROM experiment_tags")
            connection.execute("DELETE FROM experiments WHERE experiment_id != 0")
        shutil.rmtree(self.artifacts, ignore_errors=True)
        shutil.rmtree("mlruns", ignore_errors=True)

    def runs(self) -> list[Found]:
        """Return all runs that are not deleted."""
        query = """SELECT run_uuid, status, e.name, r.name, r.artifact_uri FROM runs r JOIN experiments e
                   ON r.experiment_id = e.experiment_id WHERE r.lifecycle_stage = 'active' ORDER BY start_time"""
        with closing(sqlite3.connect(self.file, timeout=60)) as connection:
            return [self._run(connection, *row) for row in connection.execute(query).fetchall()]

    def _run(
        self, connection: sqlite3.Connection, run_id: str, status: str, experiment: str, name: str, place: str
    ) -> Found:
        items: Counter[Item] = Counter([("status", status), ("experiment", experiment), ("name", name)])
        query = "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ?"
        for key, step, value, is_nan in connection.execute(query, [run_id]):
            items["metric", key, str(step), number(float("nan") if is_nan else value)] += 1
        for table, kind in (("params", "param"), ("tags", "tag")):
            for key, value in connection.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", [run_id]):
                items[kind, key, value] += 1
        root = self._folder_of(place)
        for file in root.rglob("*"):
            if file.is_file():
                items["artifact", file.relative_to(root).as_posix(), file.read_bytes().decode(errors="replace")] += 1
        return Found(run_id, items)

    def _folder_of(self, place: str) -> Path:
        if place.startswith("mlflow-artifacts:"):
            return self.artifacts / place.removeprefix("mlflow-artifacts:").lstrip("/")
        return Path(url2pathname(place.removeprefix("file://")))


class Server(Store):
    """A real MLflow server on an SQLite file of its own.

    Args:
        folder: Where its files are.
        template: An empty store, which is copied; None lets MLflow make the tables.
        python: The interpreter whose MLflow serves.
    """

    def __init__(self, folder: Path, template: Path | None, python: str = sys.executable) -> None:
        super().__init__(folder, template)
        self._python = python
        self.port = free_port(5900 + os.getpid() % 1000)
        self.store_uri, self.uri = self.uri, f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait for its first answer.

        Raises:
            RuntimeError: If it ends, or does not answer in time.
        """
        command = [self._python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--artifacts-destination", str(self.artifacts)]
        settings = {"MLFLOW_BACKEND_STORE_URI": self.store_uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment | settings, start_new_session=True, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the MLflow server does not start; see {self.folder / 'server.log'}")

    def stop(self) -> None:
        """Stop it and its workers."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
