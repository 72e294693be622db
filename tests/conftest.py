"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before MLflow is imported

import pytest
import torch

from tests.support.processes import Nursery
from tests.support.rounding import other_rounding

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A shell starts what runs in its background deaf to Ctrl-C, and so would be all commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making the tables takes seconds, copying the file does not."""
    from grad_callbacks.tracking import prepare_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{path}")
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
def nursery() -> Iterator[Nursery]:
    """Starts processes quickly."""
    made = Nursery()
    yield made
    made.close()
