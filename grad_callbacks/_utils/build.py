"""Build rules and remedies from plain values, so that YAML and command lines can name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar, cast

T = TypeVar("T")


def build(spec: object, known: Mapping[str, type[T]], what: str, protocol: type) -> T:
    """Return the object that ``spec`` describes.

    Args:
        spec: An object (returned as it is), a name (``"SkipStep"``, or ``"skip_step"``), or a mapping
            from one name to its argument or arguments (``{"ClipNorm": 1.0}``,
            ``{"ClipNorm": {"max_norm": 1.0}}``). A name with a dot is the import path of your own class.
        known: The classes that can be named without a path.
        what: The word for such an object in error messages.
        protocol: What the object must follow.

    Raises:
        ValueError: If the name is unknown, or the arguments do not fit.
    """
    made: object
    if isinstance(spec, str):
        made = _make(spec, None, known, what)
    elif isinstance(spec, Mapping):
        if len(spec) != 1:
            raise ValueError(f"a {what} is written as {{name: arguments}}, got {dict(spec)!r}")
        name, arguments = next(iter(spec.items()))
        made = _make(str(name), arguments, known, what)
    else:
        made = spec
    if isinstance(made, type) or not isinstance(made, protocol):
        raise ValueError(f"{spec!r} is not a {what}: give an object such as {next(iter(known))}(), or its name")
    return cast(T, made)


def load_named_states(parts: Sequence[Any], states: Sequence[tuple[str, Any]], what: str) -> None:
    """Load into each of ``parts`` its state, saved as pairs of class name and state.

    Raises:
        ValueError: If other classes, or in another order, were saved.
    """
    names, saved = [type(part).__name__ for part in parts], [name for name, _ in states]
    if names != saved:
        told = " and ".join(", ".join(entry) or "none" for entry in (saved, names))
        raise ValueError(f"checkpoint and callback have different {what} ({told}): resume with those that were saved")
    for part, (_, state) in zip(parts, states, strict=True):
        part.load_state_dict(state)


def _make(name: str, arguments: object, known: Mapping[str, type[T]], what: str) -> T:
    cls = _find(name, known, what)
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
