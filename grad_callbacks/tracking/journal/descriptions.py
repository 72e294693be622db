"""How messages name what an entry holds. A journal may come from anybody, so nothing is shown as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.secrets.masking import mask

LONGEST = 200  # characters that are shown of a name or a text
_KINDS = {"m": "metric", "p": "parameter", "g": "tag"}


def description(entry: Entry) -> str:
    """Return what an entry holds, as a user calls it: "artifact plots/loss.png", "metric loss at step 3".

    Args:
        entry: As it was read: it may hold anything.
    """
    for key, kind in _KINDS.items():
        if key in entry and entry[key] != {}:
            return _of_values(kind, entry[key], entry)
    if "file" in entry:
        return f"artifact {_artifact(entry)}"
    for key, kind in (("untag", "the removal of the tag"), ("status", "the status"), ("name", "the run's name")):
        if key in entry:
            return f"{kind} {shown(entry[key])}"
    return f"data set {_data_sets(entry['datasets'])}" if "datasets" in entry else "an entry of no known kind"


def shown(value: Any) -> str:
    """Return a name or number as it can be shown: one line of plain characters, without secrets, cut if it is long.

    Of anything else only its type is told.
    """
    if not isinstance(value, (str, int, float)):
        return "nothing" if value is None else f"a value of type {type(value).__name__}"
    text = ascii(value[: 2 * LONGEST])[1:-1] if isinstance(value, str) else ascii(value)
    text = str(mask(text))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _of_values(kind: str, values: Any, entry: Entry) -> str:
    if not isinstance(values, Mapping):
        return f"{kind}s of type {type(values).__name__}"
    first, more = next(iter(values)), len(values) - 1
    at = f" at step {shown(entry['s'])}" if kind == "metric" and type(entry.get("s")) is int else ""
    return f"{kind} {shown(first)}{f' and {more} more' if more else ''}{at}"


def _artifact(entry: Entry) -> str:
    if not isinstance(entry["file"], str):
        return shown(entry["file"])
    folder, name = entry.get("to", ""), PurePosixPath(entry["file"]).name
    return shown(f"{folder}/{name}" if folder and isinstance(folder, str) else name)


def _data_sets(values: Any) -> str:
    try:
        return ", ".join(shown(value["dataset"]["name"]) for value in values)[:LONGEST]
    except (LookupError, TypeError, AttributeError):
        return "without a name"
