"""The set-up for a team that the README gives: PostgreSQL and a folder of artifacts behind one MLflow server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.processes import ForkServer
from tests.support.servers import Server, artifacts_of, free_port, steps_of, the_run

pytest.importorskip("psycopg2", reason="MLflow's driver for PostgreSQL is not installed")

STEPS = 40


def programs() -> Path:
    """Debian keeps PostgreSQL's programs out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent


@pytest.fixture
def database() -> Iterator[str]:
    bin_, port = programs(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user: list[str] = []
    if os.getuid() == 0:  # which PostgreSQL refuses to be
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")

    def call(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    (folder / "password").write_text("a-password")
    (folder / "password").chmod(0o644)
    data, socket = str(folder / "data"), f"-k {folder} -p {port} -h 127.0.0.1 -F"
    call(f"{bin_}/initdb", "-D", data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={folder}/password")
    call(f"{bin_}/pg_ctl", "-D", data, "-o", socket, "-l", f"{folder}/log", "-w", "start")
    try:
        address = f"postgresql://mlflow:a-password@127.0.0.1:{port}"
        call(f"{bin_}/psql", f"{address}/postgres", "-q", "-c", "CREATE DATABASE mlflow")
        yield f"{address}/mlflow".replace(
            "postgresql:", "postgresql+psycopg2:"
        )  # SQLAlchemy 2.1 prefers another driver
    finally:
        call(f"{bin_}/pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_a_team_logs_to_one_server_with_postgresql(database: str, fork_server: ForkServer, tmp_path: Path) -> None:
    server = Server(tmp_path, database)
    try:
        server.start()
        members = {}
        for name in ("anna", "ben"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "go").touch()
            code = f"from tests.support.tracked_training import staged; staged({name!r}, {server.uri!r}, 20, {STEPS})"
            members[name] = fork_server.start(code, tmp_path / name)
        client = MlflowClient(server.uri)
        for name, process in members.items():
            process.wait()
            run = the_run(client, name)
            assert steps_of(client, run.info.run_id, "loss") == list(range(STEPS)), process.said
            texts = [f"texts/{step}.txt" for step in (0, 10, 20, 30)]
            assert artifacts_of(client, run.info.run_id) == ["context/environment.yaml", *texts]
            assert run.info.status == "FINISHED"
            assert not list((tmp_path / name / "mlflow-journal").iterdir())
        assert list((tmp_path / "artifacts").rglob("30.txt"))
        assert not (tmp_path / "mlflow.db").exists()
    finally:
        server.kill()
