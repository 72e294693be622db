"""A light local MLflow server on the project's store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

HOST = "127.0.0.1"


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
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.Popen(command, env=os.environ | quiet)
