"""Logged data as entries of a journal: names that MLflow accepts, secrets masked, long values cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from grad_callbacks.tracking.journal.format import Entry, now
from grad_callbacks.tracking.journal.names import legal_name
from grad_callbacks.tracking.journal.values import free_name, number_of, text_of, whole_number_of
from grad_callbacks.tracking.secrets.masking import mask
from grad_callbacks.tracking.told_once import warn_once

PARAM_LIMIT = 6000  # characters that MLflow keeps of a parameter
TAG_LIMIT = 8000  # characters that MLflow keeps of a tag


def metrics_entry(values: Mapping[str, Any], step: Any, timestamp: Any = None, **of: Any) -> Entry:
    """Return one entry for all metrics of a call; values that are not one number are left out, which is told once.

    Args:
        values: Numbers, or tensors of one.
        step: The step; 0 if None.
        timestamp: Milliseconds since 1970; now if None.
        of: More that MLflow keeps of a metric: ``model_id``, ``dataset_name``, ``dataset_digest``.
    """
    numbers: dict[str, float] = {}
    at = 0 if step is None else whole_number_of(step)
    since = now() if timestamp is None else whole_number_of(timestamp)
    for name, value in values.items():
        number = number_of(value)
        if number is None:
            warn_once(name, "metric %s is not logged: %s is not one number", text_of(name), _described(value))
        elif at is None or since is None:
            wrong = step if at is None else timestamp
            warn_once(name, "metric %s is not logged: %s is no step or time", text_of(name), _described(wrong))
        else:
            numbers[free_name(legal_name(name), numbers)] = number
    entry: Entry = {"m": numbers, "s": at or 0, "t": since or 0}
    extra = {key: value if isinstance(value, str) else text_of(value) for key, value in of.items() if value is not None}
    return entry | {"of": extra} if extra else entry


def batch_entries(metrics: Iterable[Any]) -> list[Entry]:
    """Return entries for MLflow's ``Metric`` objects: those of one step and time share an entry."""
    entries: dict[tuple[Any, ...], Entry] = {}
    for metric in metrics:
        of = {name: getattr(metric, name, None) for name in ("model_id", "dataset_name", "dataset_digest")}
        made = metrics_entry({metric.key: metric.value}, metric.step, metric.timestamp, **of)
        copy = 0  # counts metrics of the same name, step and time
        while True:
            key = (made["s"], made["t"], *map(text_of, of.values()), copy)
            entry = entries.setdefault(key, made | {"m": {}})
            if entry["m"].keys().isdisjoint(made["m"]):
                break
            copy += 1
        entry["m"].update(made["m"])
    return [entry for entry in entries.values() if entry["m"]]


def params_entry(params: Mapping[str, Any]) -> tuple[Entry, dict[str, str]]:
    """Return one entry for parameters, and the full text of those that are too long, by name."""
    texts = _texts(params)
    long = {name: text for name, text in texts.items() if len(text) > PARAM_LIMIT}
    return {"p": {name: text[:PARAM_LIMIT] for name, text in texts.items()}}, long


def tags_entry(tags: Mapping[str, Any]) -> Entry:
    """Return one entry for tags."""
    return {"g": {name: text[:TAG_LIMIT] for name, text in _texts(tags).items()}}


def status_entry(status: str, time: int | None = None) -> Entry:
    """Return one entry for the run's status.

    Args:
        status: MLflow's word: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        time: Since when, in milliseconds since 1970; now if None.
    """
    return {"status": status, "t": now() if time is None else time}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Masked texts by the names that they are logged under."""
    texts: dict[str, str] = {}
    for name, value in values.items():
        texts[free_name(legal_name(name), texts)] = _masked_text(value, text_of(name))
    return texts


def _masked_text(value: Any, name: str) -> str:
    try:
        text = str(mask(value, name))
    except Exception:  # of a class of the user's, or an integer of more digits than Python prints
        text = f"<{type(value).__name__}>"
        warn_once(name, "%s is logged as %s: it cannot be written as a text", name, text)
    return text_of(mask(text))  # once more: what an object says of itself may hold secrets


def _described(value: Any) -> str:
    """A short description of a value that may be anything."""
    if isinstance(value, str):
        return repr(mask(text_of(value[:50])))
    shape = getattr(value, "shape", None)
    return f"a value of type {type(value).__name__}" + (
        f" and shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    )
