"""``grad-callbacks ui``, as a user starts it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient

from grad_callbacks.tracking.server import HOST, free_port


@pytest.mark.slow
def test_the_ui_serves_the_store_says_where_and_stops_on_ctrl_c(
    client: MlflowClient, store: str, tmp_path: Path
) -> None:
    client.create_experiment("mine")
    port = free_port(5600)
    command = [sys.executable, "-u", "-m", "grad_callbacks.tracking.cli", "ui", "--store", store, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        said = ""
        while "ready" not in said:
            line = process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        [address] = re.findall(r"http://\S+", said)
        assert address.startswith(f"http://{HOST}:{port}/")
        body = json.dumps({"max_results": 10}).encode()
        request = Request(
            f"http://{HOST}:{port}/api/2.0/mlflow/experiments/search", body, {"Content-Type": "application/json"}
        )
        names = {experiment["name"] for experiment in json.load(urlopen(request, timeout=60))["experiments"]}
        assert "mine" in names
        assert free_port(port) == port + 1, "the next one is taken when it is occupied"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert free_port(port) == port, "nothing is left behind"
