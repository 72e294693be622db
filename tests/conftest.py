"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before MLflow is imported
# The user's key, with which journals are signed; processes that tests start have the same.
os.environ["XDG_STATE_HOME"] = str(Path(tempfile.gettempdir()) / f"grad-callbacks-tests-{os.getuid()}")

import pytest
import torch
from filelock import FileLock

from tests.support.processes import ForkServer
from tests.support.rounding import other_rounding

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A shell starts what runs in its background deaf to Ctrl-C, and so would be all commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs other processes is slow: they import everything first."""
    for item in items:
        if "fork_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """The same numbers for every test; TEST_TORCH_THREADS and TEST_PERTURB ask for those of other machines."""
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("TEST_TORCH_THREADS", "1")))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("grad_callbacks").setLevel(logging.NOTSET)  # a command that was tested may have silenced it
    seed = os.environ.get("TEST_PERTURB")
    with nullcontext() if seed is None else other_rounding(int(seed)):
        yield


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """An empty store: making the tables takes seconds, copying the file does not. All workers share one."""
    from grad_callbacks.tracking import prepare_store

    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "fresh_store" / "mlflow.db"
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            prepare_store(f"sqlite:///{path.with_name('unfinished.db')}")
            path.with_name("unfinished.db").rename(path)
    return path


@pytest.fixture
def store(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a store of its own for a test, which is also the default store."""
    shutil.copy(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def client(store: str) -> MlflowClient:
    """A client to :func:`store`."""
    from mlflow import MlflowClient

    return MlflowClient(store)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Starts processes quickly."""
    made = ForkServer()
    yield made
    made.close()
