"""Which values of an entry a server can store: the others are set aside before they hold up what comes after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from grad_callbacks.tracking.journal.copies import UnsafePath, safe_place
from grad_callbacks.tracking.journal.descriptions import description, shown
from grad_callbacks.tracking.journal.format import STATUSES, Entry

LARGEST = 2**63 - 1  # of steps and times: MLflow keeps both in 64 bits
LONGEST_NAME = 250  # characters that MLflow accepts
_KINDS = ("file", "untag", "status", "name", "datasets", "m", "p", "g")

Refused = tuple[str, str]  # what, and why


def sendable(entry: Entry) -> tuple[Entry, list[Refused]]:
    """Return the entry without the values that no server can store, and those values.

    Args:
        entry: As it was read: it may hold anything. What is returned has the right types.
    """
    refused: list[Refused] = []
    kept = dict(entry)
    if "run" in kept and not isinstance(kept["run"], str):
        return {}, [(description(entry), "its run is no id")]
    if kept.keys() & {"m", "p", "g"}:
        for key, check in (("m", _metric(kept)), ("p", _text), ("g", _text)):
            if key in kept:
                kept[key] = _checked(kept, key, check, refused)
        return kept, refused
    try:
        _check_single(kept)
    except (TypeError, ValueError) as error:
        return {}, [(description(entry), str(error))]
    return kept, refused


def metrics_of(entry: Entry) -> list[Metric]:
    """Return an entry's metrics as MLflow's objects."""
    of = entry.get("of", {})
    return [Metric(name, value, entry["t"], entry["s"], **of) for name, value in entry.get("m", {}).items()]


def dataset(value: dict[str, Any]) -> DatasetInput:
    """Return a data set as MLflow's object."""
    tags = value.get("tags", {})
    pairs = tags.items() if isinstance(tags, dict) else ((tag["key"], tag["value"]) for tag in tags)
    return DatasetInput(Dataset(**value["dataset"]), [InputTag(key, text) for key, text in pairs])


def has_kind(entry: Entry) -> bool:
    """True if the entry holds something to send."""
    return any(kind in entry for kind in _KINDS)


def _checked(entry: Entry, key: str, check: Callable[[str, Any], Any], refused: list[Refused]) -> dict[str, Any]:
    values = entry[key]
    if not isinstance(values, dict):
        refused.append((description({key: values}), "they have no names"))
        return {}
    kept = {}
    for name, value in values.items():
        try:
            _encode(name, "its name")
            if len(name) > LONGEST_NAME:
                raise ValueError(f"its name has {len(name)} characters, and MLflow takes {LONGEST_NAME}")
            kept[name] = check(name, value)
        except (TypeError, ValueError, OverflowError) as error:
            refused.append((description({key: {name: value}, "s": entry.get("s")}), str(error)))
    return kept


def _metric(entry: Entry) -> Callable[[str, Any], float]:
    def check(_: str, value: Any) -> float:
        _check_number(entry.get("s"), "its step", -LARGEST - 1)
        _check_number(entry.get("t"), "its time", 0)
        of = entry.get("of", {})
        if not isinstance(of, dict) or not of.keys() <= {"model_id", "dataset_name", "dataset_digest"}:
            raise ValueError("what is said of it is no model and no data set")
        for text in of.values():
            _encode(text, "its data set or model")
        if isinstance(value, (str, bytes)):
            raise TypeError("it is no number")
        return float(value)

    return check


def _text(_: str, value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    _encode(text, "its text")
    return text


def _check_single(entry: Entry) -> None:
    """Check an entry that needs a request of its own.

    Raises:
        TypeError: If something has the wrong type.
        ValueError: If a value cannot be stored.
    """
    if "file" in entry:
        _encode(entry["file"], "its file")
        try:
            entry["to"] = safe_place(entry.get("to", ""))
        except UnsafePath as error:
            raise ValueError(str(error)) from error
        _encode(entry["to"], "its place")
    elif "status" in entry:
        if entry["status"] not in STATUSES:
            raise ValueError(f"MLflow knows no status {shown(entry['status'])}")
        _check_number(entry.get("t"), "its time", 0)
    for key in ("untag", "name"):
        if key in entry:
            _encode(entry[key], key)
    try:
        for value in entry.get("datasets", []):
            dataset(value).to_proto()
    except (AttributeError, LookupError) as error:
        raise ValueError("a data set is not complete") from error


def _check_number(value: Any, what: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is no whole number: {shown(value)}")
    if not least <= value <= LARGEST:
        raise ValueError(f"{what} {shown(value)} does not fit into 64 bits")


def _encode(text: Any, what: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} is no text: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is no valid Unicode") from error
