"""A light local MLflow server on the project's store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

HOST = "127.0.0.1"
PATIENCE = 120  # seconds for the server to answer


def free_port(wanted: int) -> int:
    """Return ``wanted`` or the next port after it that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise RuntimeError(f"no free port between {wanted} and {wanted + 99}: choose another with --port")


def start_server(store: str, port: int) -> subprocess.Popen[bytes]:
    """Start ``mlflow server`` with one worker, on loopback only.

    MLflow's own defaults start 15 processes; without its job runner and with one worker it needs a sixth of
    the memory.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    light = {
        "MLFLOW_BACKEND_STORE_URI": store,  # here `ps` does not show a password in it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    # A session of its own: Ctrl-C reaches this process alone, which then stops the server and its workers.
    return subprocess.Popen(command, env=os.environ | light, start_new_session=True)


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers, and wait until they are gone."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> str:
    """Wait until the server answers, and return the address of the page with the experiments.

    MLflow opens on its pages for chat applications unless the address asks for model training.

    Raises:
        RuntimeError: If the server ends, or does not answer within two minutes.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the MLflow server ended with status {server.returncode}; its messages are above")
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return f"http://{HOST}:{port}/#/experiments?workflowType=machine_learning"
        time.sleep(0.2)
    raise RuntimeError(f"the MLflow server did not answer on port {port} within {PATIENCE} s")
