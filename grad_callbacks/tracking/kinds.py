"""How kinds of alert are shown: their colours and their order."""

from __future__ import annotations

import re
from collections.abc import Iterable

import grad_callbacks.detection.rules  # noqa: F401  declares the built-in kinds
from grad_callbacks.events import AlertKind, kind_named

_HEX = re.compile(r"#[0-9a-f]{6}")


def colour_of(kind: str) -> str:
    """Return a kind's colour as ``"#rrggbb"``, safe to be put into a page.

    It is neutral if no rule in this process declares the kind, or if the declared colour has another form.
    """
    colour = str(kind_named(kind).colour).lower()
    return colour if _HEX.fullmatch(colour) else AlertKind(kind).colour


def in_order(kinds: Iterable[str]) -> list[str]:
    """Return each kind once, in the order of legends."""
    return sorted(set(kinds), key=lambda kind: (kind_named(kind).order, kind))


def colours_of(kinds: Iterable[str]) -> dict[str, str]:
    """Return the colour of each kind, in the order of legends."""
    return {kind: colour_of(kind) for kind in in_order(kinds)}
