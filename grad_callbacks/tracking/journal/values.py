"""Values of any kind as numbers, texts and plain data, whatever their methods raise."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from grad_callbacks.tracking.secrets.masking import DEEPEST, TOO_DEEP
from grad_callbacks.tracking.told_once import warn_once

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # NUL is refused by PostgreSQL, halves of a character by UTF-8


def text_of(value: object) -> str:
    r"""Return ``str(value)``, or ``<type>`` if that raises, as a text that every database takes."""
    try:
        return storable(str(value))
    except Exception:  # of a class of the user's, or an integer of more digits than Python prints
        return f"<{type(value).__name__}>"


def storable(text: str) -> str:
    r"""Return a text that every database takes: halves of a character and NUL as ``\ud800`` and ``\x00``."""
    return _UNSTORABLE.sub(lambda found: "\\x00" if found.group() == "\0" else f"\\u{ord(found.group()):x}", text)


def number_of(value: object) -> float | None:
    """Return a value as one number; None if it is none, or too large for 64 bits."""
    try:
        return float(value)  # type: ignore[arg-type]
    except Exception:  # a text, a tensor of several values or without any, 10**400, a class of the user's
        return None


def whole_number_of(value: object) -> int | None:
    """Return a step or time as a whole number; None if it is none."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except Exception:
        return None


def plain(value: Any, leaves_as_text: bool = False) -> Any:
    """Return mappings, dataclasses, namespaces, lists and tuples as new dictionaries, lists and tuples.

    What contains itself, or lies deeper than 100 levels, becomes ``...``; an entry that cannot be read its type.

    Args:
        value: Anything.
        leaves_as_text: Everything else becomes a text, too, unless JSON knows it.
    """
    return _plain(value, leaves_as_text, ())


def flattened(params: Mapping[Any, Any]) -> dict[str, Any]:
    """Return nested plain data with names such as ``a/b``; of two equal names the later one gets a suffix."""
    flat: dict[str, Any] = {}
    _flatten(params, "", flat)
    return flat


def _plain(value: Any, leaves_as_text: bool, above: tuple[int, ...]) -> Any:
    is_record = isinstance(value, Namespace) or (is_dataclass(value) and not isinstance(value, type))
    if not is_record and not isinstance(value, (Mapping, list, tuple)):
        return _leaf(value) if leaves_as_text else value
    if id(value) in above or len(above) >= DEEPEST:
        return TOO_DEEP
    above = (*above, id(value))
    try:
        if isinstance(value, (list, tuple)):
            entries = [_plain(entry, leaves_as_text, above) for entry in list(value)]
            return tuple(entries) if isinstance(value, tuple) else entries
        return {_key(name): _plain(entry, leaves_as_text, above) for name, entry in _entries(value)}
    except Exception:  # whatever a class of the user's raises
        return f"<{type(value).__name__}>"


def _entries(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Namespace):
        return list(vars(value).items())
    if not isinstance(value, Mapping):
        return [(field.name, getattr(value, field.name, None)) for field in fields(value)]
    entries = []
    for name in list(value):
        try:
            entries.append((name, value[name]))
        except Exception as error:  # as of a value of OmegaConf that is missing
            entries.append((name, f"<{type(error).__name__}>"))
    return entries


def _key(name: Any) -> Any:
    return name if isinstance(name, (str, int, float)) or name is None else text_of(name)


def _leaf(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else text_of(value)
    if hasattr(value, "item") and (number := number_of(value)) is not None and math.isfinite(number):
        return int(number) if number.is_integer() and "int" in str(getattr(value, "dtype", "")) else number
    return text_of(value)


def _flatten(params: Mapping[Any, Any], prefix: str, flat: dict[str, Any]) -> None:
    for key, value in params.items():
        name = prefix + text_of(key)
        if isinstance(value, Mapping):
            _flatten(value, f"{name}/", flat)
        elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
            for index, entry in enumerate(value):
                _flatten(entry, f"{name}/{index}/", flat)
        else:
            flat[free_name(name, flat)] = value


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return ``name``, or ``name.2`` and so on if it is taken, which is told once."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}.{count}"
    if count > 1:
        warn_once(free, "two values are called %.100s: the second is logged as %.110s", name, free)
    return free
