"""Checks of the logger's arguments: each error names the argument, the value and the remedy. Nothing is opened."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any
from urllib.parse import urlsplit

from grad_callbacks._utils.extras import require
from grad_callbacks._utils.validation import at_least, flag
from grad_callbacks.tracking.secrets.masking import mask_address

EXPERIMENT_LIMIT = 500  # characters that MLflow accepts in an experiment's name
_PLAIN_ADDRESSES = ("databricks", "databricks-uc", "uc")  # that MLflow knows without `://`
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(?!\d+(?:/|$))")  # not `localhost:5000`
_EXAMPLES = "http://127.0.0.1:5000 or sqlite:////data/mlflow.db"


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of ``JournaledMLFlowLogger``, by name.

    Raises:
        ModuleNotFoundError: If MLflow is not installed.
        ValueError: If one of them cannot be used.
    """
    require("mlflow", "mlflow", "JournaledMLFlowLogger")
    name = arguments["experiment_name"]
    if not isinstance(name, str) or not name.strip() or len(name) > EXPERIMENT_LIMIT:
        raise ValueError(f"experiment_name must be a text of 1 to {EXPERIMENT_LIMIT} characters, got {_short(name)}")
    for argument in ("run_name", "run_id", "artifact_location"):
        _check_text(argument, arguments[argument], "a text or None")
    if arguments["run_id"] is not None and not re.fullmatch(r"[a-zA-Z0-9][\w-]{0,255}", arguments["run_id"]):
        raise ValueError(f"run_id must be the id of a run, letters and digits, got {_short(arguments['run_id'])}")
    for argument in ("save_dir", "journal_dir"):
        value = arguments[argument]
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{argument} must be a folder's path or None, got {_short(value)}")
    if not isinstance(arguments["prefix"], str):
        raise ValueError(f"prefix must be a text, got {_short(arguments['prefix'])}")
    if arguments["tags"] is not None and not isinstance(arguments["tags"], Mapping):
        raise ValueError(f"tags must be a dictionary or None, got {_short(arguments['tags'])}")
    if arguments["log_model"] not in (True, False, "all"):
        raise ValueError(f"log_model must be True, False or 'all', got {_short(arguments['log_model'])}")
    if arguments["tracking_uri"] is not None:
        check_address("tracking_uri", arguments["tracking_uri"])
    for argument in ("probe_timeout", "finalize_timeout"):
        _check_seconds(argument, arguments[argument])
    at_least("disk_limit", arguments["disk_limit"], 1)
    flag("keep_journal", arguments["keep_journal"])


def check_address(name: str, address: object) -> None:
    """Check an MLflow tracking address by its form.

    Args:
        name: Where it was given, for the error.
        address: An address; one of a scheme that MLflow gets from a plugin is taken as it is.

    Raises:
        ValueError: If it cannot be used.
    """
    wrong = f"{name} must be an address such as {_EXAMPLES}"
    if not isinstance(address, str) or not address.strip():
        raise ValueError(f"{wrong}, got {_short(address)}")
    shown = mask_address(address)
    found = _SCHEME.match(address)
    if address in _PLAIN_ADDRESSES:
        return
    if found is None:
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() == "true":
            return
        is_server = re.match(r"[\w.-]+:\d+", address)
        remedy = f"write http://{shown}" if is_server else "MLflow no longer keeps runs in a folder of files"
        raise ValueError(f"{wrong}, got {shown!r}: {remedy}")
    scheme = found.group(1).lower()
    if scheme in ("http", "https"):
        _check_server(wrong, address, shown)
    elif scheme == "sqlite" and not address.startswith("sqlite:///"):
        raise ValueError(f"{wrong}, got {shown!r}: SQLite addresses have three slashes, or four before a full path")


def _check_server(wrong: str, address: str, shown: str) -> None:
    try:
        parts = urlsplit(address)
        has_host = bool(parts.hostname) and parts.port != 0  # `port` raises if it is no number up to 65535
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError(f"{wrong}, got {shown!r}: it needs a host, and a port up to 65535")


def _check_text(name: str, value: object, what: str) -> None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be {what}, got {_short(value)}")


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of seconds, 0 or more, got {_short(value)}")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # of a class of the user's
        return f"<{type(value).__name__}>"
    return mask_address(text if len(text) <= 80 else f"{text[:80]}…")
