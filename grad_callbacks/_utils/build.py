"""Build rules and remedies from plain values, so that YAML and command lines can name them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar, cast

from grad_callbacks._utils.suggest import did_you_mean

T = TypeVar("T")


def build(spec: object, known: Mapping[str, type[T]], what: str, base: type) -> T:
    """Return the object that ``spec`` describes.

    Args:
        spec: An object (returned as it is), a name (``"SkipStep"``, or ``"skip_step"``), or a mapping
            from one name to its argument or arguments (``{"ClipNorm": 1.0}``,
            ``{"ClipNorm": {"max_norm": 1.0}}``). A name with a dot is the import path of your own class.
        known: The classes that can be named without a path.
        what: The word for such an object in error messages.
        base: The class that it must be derived from.

    Raises:
        ValueError: If the name is unknown or no such class, the arguments do not fit, or the object is none of these.
    """
    if isinstance(spec, str):
        return _make(spec, None, known, what, base)
    if isinstance(spec, Mapping):
        if len(spec) != 1:
            raise ValueError(f"a {what} is written as {{name: arguments}}, got {dict(spec)!r}")
        name, arguments = next(iter(spec.items()))
        if not isinstance(name, str):
            raise ValueError(f"a {what} is written as {{name: arguments}}, got {dict(spec)!r}: {name!r} is no name")
        return _make(name, arguments, known, what, base)
    if isinstance(spec, type) and issubclass(spec, base):
        raise ValueError(f"{spec!r} is not a {what} but its class: give an object such as {next(iter(known))}()")
    if not isinstance(spec, base):
        raise ValueError(
            f"{spec!r} is not a {what}: give an object such as {next(iter(known))}(), or its name; for one of your own "
            f"subclass grad_callbacks.{base.__name__}"
        )
    return cast(T, spec)


def _make(name: str, arguments: object, known: Mapping[str, type[T]], what: str, base: type) -> T:
    cls = _find(name, known, what, base)
    try:
        if arguments is None:
            return cls()
        if isinstance(arguments, Mapping):
            return cls(**{str(key): value for key, value in arguments.items()})
        return cls(arguments)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} {name}: {error}") from error


def _find(name: str, known: Mapping[str, type[T]], what: str, base: type) -> type[T]:
    """The class that a name stands for; nothing else is ever called, and nothing is imported for a name of ours."""
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found: Any = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"cannot import the {what} {name!r}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"{name!r} is not a {what}: it is no subclass of grad_callbacks.{base.__name__}")
        return cast(type[T], found)
    by_plain_name = {plain(key): value for key, value in known.items()}
    if plain(name) not in by_plain_name:
        raise ValueError(
            f"unknown {what} {name!r}; known are {', '.join(known)}, or the import path of your own class"
            + did_you_mean(name, known)
        )
    return by_plain_name[plain(name)]


def plain(name: str) -> str:
    """Return ``name`` without case and underscores: ``ClipNorm`` and ``clip_norm`` are one name."""
    return name.replace("_", "").lower()
