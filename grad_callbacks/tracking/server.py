"""A local MLflow server on the project's store, with few processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

HOST = "127.0.0.1"
START_TIMEOUT = 120  # seconds to wait for the server's first answer
POLL_INTERVAL = 0.2  # seconds
MAX_PORTS = 100  # that are tried


def free_port(wanted: int) -> int:
    """Return ``wanted`` or the next free port after it.

    Raises:
        RuntimeError: If the next 100 ports are all in use.
    """
    last = min(wanted + MAX_PORTS, 65536) - 1
    for port in range(wanted, last + 1):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise RuntimeError(f"no free port between {wanted} and {last}: choose another with --port")


def start_server(store: str, port: int) -> subprocess.Popen[bytes]:
    """Start ``mlflow server`` with one worker, on loopback only.

    MLflow's own defaults start 15 processes; with one worker and without its job runner it needs a sixth of the memory.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store,  # not an argument, since `ps` would show a password in it
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    # In a session of its own: Ctrl-C reaches only this process, which then stops the server and its workers.
    return subprocess.Popen(command, env=os.environ | settings, start_new_session=True)


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers, and wait until they are gone."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> str:
    """Wait until the server answers, and return the address of its page of experiments.

    The address selects model training: by default MLflow shows its pages for chat applications.

    Raises:
        RuntimeError: If the server ends, or does not answer within two minutes.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the MLflow server ended with status {server.returncode}; its messages are above")
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return f"http://{HOST}:{port}/#/experiments?workflowType=machine_learning"
        time.sleep(POLL_INTERVAL)
    raise RuntimeError(f"the MLflow server did not answer on port {port} within {START_TIMEOUT} s")
