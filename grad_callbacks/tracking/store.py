"""Where runs are kept: an SQLite file in the working folder unless told otherwise."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

_SQLITE = "sqlite:///"
LOCK_SECONDS = 120  # creating a fresh store takes seconds


class StoreError(RuntimeError):
    """The store cannot be used; the message says which and why."""


def default_store(folder: str | os.PathLike[str] | None = None) -> str:
    """Return ``$MLFLOW_TRACKING_URI`` or else ``mlflow.db`` in a folder, as an absolute SQLite address.

    MLflow's own default, a folder of files, is refused by MLflow itself since 3.10.

    Args:
        folder: By default the working folder.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or _SQLITE + str(_absolute(folder) / "mlflow.db")


def default_artifacts(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Return the address of ``mlartifacts`` in a folder; None where a server decides."""
    return (_absolute(folder) / "mlartifacts").as_uri() if default_store().startswith(_SQLITE) else None


def default_journals(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return ``$GRAD_CALLBACKS_JOURNAL``, or else ``mlflow-journal`` in a folder."""
    named = os.environ.get("GRAD_CALLBACKS_JOURNAL")
    return Path(named).absolute() if named else _absolute(folder) / "mlflow-journal"


def _absolute(folder: str | os.PathLike[str] | None) -> Path:
    return Path.cwd() if folder is None else Path(folder).absolute()


def prepare_store(uri: str) -> MlflowClient:
    """Make sure that the store is there and can be written, and return a client to it.

    A fresh SQLite file gets its tables under a file lock: several processes that create them at once would crash.

    Args:
        uri: An MLflow tracking address.

    Raises:
        StoreError: If the store cannot be read or written.
    """
    if not uri.startswith(_SQLITE):
        return _connect(uri)
    path = Path(uri.removeprefix(_SQLITE))
    if not path.parent.is_dir():
        raise _unusable(uri, FileNotFoundError(f"there is no folder {path.parent}"))
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            with sqlite3.connect(path) as connection:
                connection.execute("BEGIN IMMEDIATE")  # fails here and now if the file cannot be written
            connection.close()
            return _connect(uri)
    except (OSError, sqlite3.Error, Timeout) as error:
        raise _unusable(uri, error) from error


def open_store(uri: str) -> None:
    """Make an SQLite store's tables if they are not there; of another store nothing is asked.

    Raises:
        StoreError: If the SQLite store cannot be read or written.
    """
    if uri.startswith(_SQLITE):
        prepare_store(uri)


def _connect(uri: str) -> MlflowClient:
    for chatter in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise _unusable(uri, error) from error
    return client


def _unusable(uri: str, error: Exception) -> StoreError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(f"the MLflow store {uri} cannot be used: {reason}. Choose another with MLFLOW_TRACKING_URI.")
