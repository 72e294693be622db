"""Build rules and remedies from plain values, so that YAML and command lines can name them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def build(spec: object, known: Mapping[str, type[T]], what: str) -> T:
    """Return the object that ``spec`` describes.

    Args:
        spec: An object (returned as it is), a name (``"SkipStep"``, or ``"skip_step"``), or a mapping
            from one name to its argument or arguments (``{"ClipNorm": 1.0}``,
            ``{"ClipNorm": {"max_norm": 1.0}}``). A name with a dot is the import path of your own class.
        known: The classes that can be named without a path.
        what: The word for such an object in error messages.

    Raises:
        ValueError: If the name is unknown, or the arguments do not fit.
    """
    if isinstance(spec, str):
        name, arguments = spec, None
    elif isinstance(spec, Mapping):
        if len(spec) != 1:
            raise ValueError(f"a {what} is written as {{name: arguments}}, got {dict(spec)!r}")
        name, arguments = next(iter(spec.items()))
    elif isinstance(spec, type) or not hasattr(spec, "state_dict"):
        raise ValueError(f"{spec!r} is not a {what}: give an object such as {next(iter(known))}(), or its name")
    else:
        return spec  # type: ignore[return-value]  # duck-typed: whatever follows the protocol
    cls = _find(str(name), known, what)
    try:
        if arguments is None:
            return cls()
        if isinstance(arguments, Mapping):
            return cls(**{str(key): value for key, value in arguments.items()})
        return cls(arguments)  # type: ignore[call-arg]
    except TypeError as error:
        raise ValueError(f"{what} {name}: {error}") from error


def _find(name: str, known: Mapping[str, type[T]], what: str) -> type[T]:
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found: Any = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import the {what} {name!r}: {error}") from error
        return found  # type: ignore[no-any-return]
    by_plain_name = {plain(key): value for key, value in known.items()}
    if plain(name) not in by_plain_name:
        raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}, or the import path of your own class")
    return by_plain_name[plain(name)]


def plain(name: str) -> str:
    """Return ``name`` without case and underscores: ``ClipNorm`` and ``clip_norm`` are one name."""
    return name.replace("_", "").lower()
