"""Which MLflow a database store is of: MLflow changes the tables of an older one when it opens it, one way."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from grad_callbacks.tracking.secrets.masking import mask_address

log = logging.getLogger("grad_callbacks")

DATABASES = ("postgresql", "mysql", "mssql")  # that MLflow takes beside SQLite
_MIGRATIONS = Path("store", "db_migrations", "versions")  # in MLflow's package
_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"'](\w+)", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=\n]*=\s*[\"'](\w+)", re.MULTILINE)
SHARED_STORES = "docs/shared-store.md"


class SchemaError(RuntimeError):
    """A store's tables are of another MLflow; the message names both and says what to do."""


def is_database(uri: str) -> bool:
    """True for the address of a database on a server."""
    return uri.partition("://")[0].partition("+")[0] in DATABASES


def check_sqlite(path: Path, uri: str) -> None:
    """Copy an SQLite store that MLflow is about to change, and say so; refuse one that is of a newer MLflow.

    Args:
        path: The file; nothing is done for a new or empty one.
        uri: Its address, for the message.

    Raises:
        SchemaError: If it is of a newer MLflow.
        OSError: If it cannot be copied; nothing was changed then.
    """
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            return
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if found is None or not _is_older(found[0], uri):
            return
        copy = path.with_name(f"{path.name}.{found[0]}.bak")
        _copy(connection, copy)
    log.warning(
        "the MLflow store %s has the tables of an older MLflow (schema %s). MLflow %s changes them now (schema %s), "
        "one way: an older MLflow cannot open it any more. A copy for that is %s",
        uri,
        found[0],
        *_installed(),
        copy,
    )


def check_database(uri: str) -> None:
    """Refuse a database on a server that is of another MLflow: others may use it.

    Raises:
        SchemaError: If it is of another MLflow.
        Exception: Of SQLAlchemy, if it cannot be read.
    """
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    if found is not None and _is_older(found, uri):
        version, head = _installed()
        raise SchemaError(
            f"the MLflow store {mask_address(uri)} has the tables of an older MLflow (schema {found}). MLflow "
            f"{version} (schema {head}) would change them for all who use it, one way; nothing was changed. "
            f"How to upgrade together: {SHARED_STORES}"
        )


def _is_older(revision: str, uri: str) -> bool:
    """True if the installed MLflow knows a store's schema and has a newer one.

    Raises:
        SchemaError: If it does not know it.
    """
    version, head = _installed()
    if revision == head:
        return False
    if revision in _known():
        return True
    raise SchemaError(
        f"the MLflow store {mask_address(uri)} was changed by a newer MLflow (schema {revision}), and the installed "
        f"MLflow {version} (schema {head}) cannot open it: install that newer one, or choose another store with "
        "MLFLOW_TRACKING_URI"
    )


def _copy(connection: sqlite3.Connection, copy: Path) -> None:
    unfinished = copy.with_name(f"{copy.name}.part")
    try:
        with closing(sqlite3.connect(unfinished)) as target:
            connection.backup(target)  # also what is still in a write-ahead log
        os.replace(unfinished, copy)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(
            f"it is of an older MLflow and cannot be copied to {copy} before it is changed ({error})"
        ) from error


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """The schemas that the installed MLflow knows."""
    return frozenset(_before())


@lru_cache(maxsize=1)
def _installed() -> tuple[str, str]:
    """The version of the installed MLflow, and its schema."""
    from importlib.metadata import version

    [head] = _before().keys() - set(_before().values())
    return version("mlflow"), head


@lru_cache(maxsize=1)
def _before() -> dict[str, str]:
    """Each schema of the installed MLflow, and the one before it.

    Read from the texts of its migrations: to load them, as Alembic does, takes a second.
    """
    import mlflow

    texts = [file.read_text("utf-8") for file in (Path(mlflow.__file__).parent / _MIGRATIONS).glob("*.py")]
    pairs = [(_REVISION.search(text), _DOWN_REVISION.search(text)) for text in texts]
    return {own[1]: before[1] if before else "" for own, before in pairs if own}
