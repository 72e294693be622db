"""Where runs are kept: by default an SQLite file in the working folder."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from grad_callbacks.tracking.secrets.masking import mask, mask_address
from grad_callbacks.tracking.store_schema import SchemaError, check_database, check_sqlite, is_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
LOCK_TIMEOUT = 120  # seconds to wait for other processes that create the same store


class StoreError(RuntimeError):
    """The store cannot be used; the message says which store and why."""


def default_store(folder: str | os.PathLike[str] | None = None) -> str:
    """Return ``$MLFLOW_TRACKING_URI`` or else ``mlflow.db`` in a folder, as an absolute SQLite address.

    MLflow's own default, a folder of files, is no longer accepted since MLflow 3.10.

    Args:
        folder: By default the working folder.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or _SQLITE + str(_absolute(folder) / "mlflow.db")


def default_artifacts(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Return the address of ``mlartifacts`` in a folder; None if the server decides."""
    return (_absolute(folder) / "mlartifacts").as_uri() if default_store().startswith(_SQLITE) else None


def default_journals(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return ``$GRAD_CALLBACKS_JOURNAL``, or else ``mlflow-journal`` in a folder."""
    named = os.environ.get("GRAD_CALLBACKS_JOURNAL")
    return Path(named).absolute() if named else _absolute(folder) / "mlflow-journal"


def _absolute(folder: str | os.PathLike[str] | None) -> Path:
    return Path.cwd() if folder is None else Path(folder).absolute()


def prepare_store(uri: str) -> MlflowClient:
    """Make sure that the store exists and can be written, and return a client for it.

    The tables of a new SQLite file are created under a file lock: several processes doing so at once would crash.

    Args:
        uri: An MLflow tracking address.

    Raises:
        StoreError: If the store cannot be read or written.
    """
    if not uri.startswith(_SQLITE):
        _check_database(uri)
        return _connect(uri)
    path = Path(uri.removeprefix(_SQLITE))
    if not path.parent.is_dir():
        raise _unusable(uri, FileNotFoundError(f"there is no folder {path.parent}"))
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT):
            with sqlite3.connect(path) as connection:
                connection.execute("BEGIN IMMEDIATE")  # fails at once if the file cannot be written
            connection.close()
            check_sqlite(path, uri)
            return _connect(uri)
    except SchemaError as error:
        raise StoreError(str(error)) from error
    except (OSError, sqlite3.Error, Timeout) as error:
        raise _unusable(uri, error) from error


def check_exists(uri: str) -> None:
    """Do nothing, unless this is an SQLite store that is not there: to read runs, none is created.

    Raises:
        StoreError: If it is not there.
    """
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        raise _unusable(uri, FileNotFoundError("there is no such file"))


def open_store(uri: str) -> None:
    """Create the tables of an SQLite store if they are missing; only check those of a database on a server.

    Raises:
        StoreError: If the SQLite store cannot be read or written, or the database is of another MLflow.
    """
    if uri.startswith(_SQLITE):
        prepare_store(uri)
    else:
        _check_database(uri)


def _check_database(uri: str) -> None:
    if not is_database(uri):
        return
    try:
        check_database(uri)
    except SchemaError as error:
        raise StoreError(str(error)) from error
    except Exception as error:  # whatever SQLAlchemy or a driver raises
        raise _unusable(uri, error) from error


def _connect(uri: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for verbose in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(verbose).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise _unusable(uri, error) from error
    return client


def _unusable(uri: str, error: Exception) -> StoreError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(
        f"the MLflow store {mask_address(uri)} cannot be used: {mask(reason)}. Choose another with MLFLOW_TRACKING_URI."
    )
