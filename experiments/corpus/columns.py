"""Columns: values of any plain type, one per row, as arrays that compress well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_NUMBERS: dict[str, type] = {"bool": bool, "int": int, "float": float}


def to_columns(columns: Mapping[str, Sequence[Any]], prefix: str, arrays: Arrays) -> dict[str, Any]:
    """Store columns under ``prefix`` in ``arrays``.

    Args:
        columns: By name, values of one type, one per row: arrays of one shape, numbers, or what JSON can hold.
            Each may be None.
        prefix: Comes before the arrays' names.
        arrays: Takes up what is large.

    Returns:
        What :func:`from_columns` needs beside the arrays, as JSON can hold it.
    """
    return {name: _store(list(values), f"{prefix}.{name}", arrays) for name, values in columns.items()}


def from_columns(told: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Return the columns that :func:`to_columns` stored."""
    return {name: _restore(entry, arrays) for name, entry in told.items()}


def _store(values: list[Any], key: str, arrays: Arrays) -> dict[str, Any]:
    there = [value is not None for value in values]
    held = [value for value in values if value is not None]
    how = _how(held)
    if how == "json":
        return {"how": how, "values": values}
    arrays[key] = np.stack(held) if how == "array" else np.array(held)
    if all(there):
        return {"how": how, "key": key}
    arrays[f"{key}.there"] = np.array(there)
    return {"how": how, "key": key, "there": f"{key}.there"}


def _how(held: list[Any]) -> str:
    if held and all(isinstance(value, np.ndarray) for value in held):
        return "array"
    kinds = {type(value) for value in held}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float, np.float64} else "json"


def _restore(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    if entry["how"] == "json":
        return list(entry["values"])
    stored = arrays[entry["key"]]
    held = list(stored) if entry["how"] == "array" else [_NUMBERS[entry["how"]](value) for value in stored]
    if "there" not in entry:
        return held
    waiting = iter(held)
    return [next(waiting) if is_there else None for is_there in arrays[entry["there"]]]
