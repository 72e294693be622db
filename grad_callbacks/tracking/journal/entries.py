"""Logged data as entries of a journal: names that MLflow accepts, secrets masked, long values cut."""

from __future__ import annotations

import hashlib
import logging
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from grad_callbacks.tracking.journal.format import Entry, now
from grad_callbacks.tracking.secrets.masking import mask

log = logging.getLogger("grad_callbacks")

PARAM_LIMIT = 6000  # characters that MLflow keeps of a parameter
TAG_LIMIT = 8000  # characters that MLflow keeps of a tag
NAME_LIMIT = 250  # characters that MLflow accepts in a name
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_/. -]+")


def legal_name(name: object) -> str:
    """Return a name that MLflow accepts: without illegal characters, as Lightning does, and cut to 250 characters."""
    legal = posixpath.normpath(_ILLEGAL.sub("", str(name)).strip()).lstrip("/.")
    legal = legal.strip() or "unnamed"
    if len(legal) <= NAME_LIMIT:
        return legal
    return f"{legal[: NAME_LIMIT - 9]}-{hashlib.sha256(legal.encode()).hexdigest()[:8]}"


def metrics_entry(values: Mapping[str, Any], step: int | None, timestamp: int | None = None, **of: Any) -> Entry:
    """Return one entry for all metrics of a call; values that are not numbers are left out with a warning.

    Args:
        values: Numbers, or tensors of one.
        step: The step; 0 if None.
        timestamp: Milliseconds since 1970; now if None.
        of: More that MLflow keeps of a metric: ``model_id``, ``dataset_name``, ``dataset_digest``.
    """
    numbers: dict[str, float] = {}
    for name, value in values.items():
        try:
            numbers[legal_name(name)] = float(value)
        except (TypeError, ValueError):
            log.warning("metric %s is not logged: %r is not a number", name, value)
    entry: Entry = {"m": numbers, "s": int(step or 0), "t": int(timestamp) if timestamp is not None else now()}
    extra = {key: value for key, value in of.items() if value is not None}
    return entry | {"of": extra} if extra else entry


def batch_entries(metrics: Iterable[Any]) -> list[Entry]:
    """Return entries for MLflow's ``Metric`` objects: those of one step and time share an entry."""
    entries: dict[tuple[Any, ...], Entry] = {}
    for metric in metrics:
        of = {name: getattr(metric, name, None) for name in ("model_id", "dataset_name", "dataset_digest")}
        copy = 0  # counts metrics of the same name, step and time
        while True:
            key = (metric.step, metric.timestamp, *of.values(), copy)
            entry = entries.setdefault(key, metrics_entry({}, metric.step, metric.timestamp, **of))
            if legal_name(metric.key) not in entry["m"]:
                break
            copy += 1
        entry["m"].update(metrics_entry({metric.key: metric.value}, 0)["m"])
    return [entry for entry in entries.values() if entry["m"]]


def params_entry(params: Mapping[str, Any]) -> tuple[Entry, dict[str, str]]:
    """Return one entry for parameters, and the full text of those that are too long, by name."""
    texts = {legal_name(name): str(mask(value, str(name))) for name, value in params.items()}
    long = {name: text for name, text in texts.items() if len(text) > PARAM_LIMIT}
    return {"p": {name: text[:PARAM_LIMIT] for name, text in texts.items()}}, long


def tags_entry(tags: Mapping[str, Any]) -> Entry:
    """Return one entry for tags."""
    return {"g": {legal_name(name): str(mask(value, str(name)))[:TAG_LIMIT] for name, value in tags.items()}}


def status_entry(status: str, time: int | None = None) -> Entry:
    """Return one entry for the run's status.

    Args:
        status: MLflow's word: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        time: Since when, in milliseconds since 1970; now if None.
    """
    return {"status": status, "t": now() if time is None else time}
