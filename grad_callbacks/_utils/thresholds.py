"""Thresholds: the numbers that decide, each with its unit, its meaning and where it comes from.

Every rule, remedy and probe keeps its own in one frozen dataclass beside its code; ``docs/thresholds.md`` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Thresholds:
    """The numbers that decide in one rule, remedy or probe.

    A subclass is a frozen dataclass, each field of which is a :func:`threshold`; its docstring names its owner.
    """


def threshold(value: Any, meaning: str, *, unit: str, source: str) -> Any:
    """Declare one of the numbers of a :class:`Thresholds`.

    Args:
        value: The number, or a tuple of numbers.
        meaning: What is decided by it.
        unit: Its unit: ``"readings"``, ``"x usual norm"``, ``"share of the weights' norm"``; ``"1"`` for a plain ratio.
        source: A publication with its section, or what was measured.
    """
    return field(default=value, metadata={"meaning": meaning, "unit": unit, "source": source})


def all_thresholds() -> Iterator[type[Thresholds]]:
    """All subclasses that have been imported, by module and name."""
    yield from sorted(_below(Thresholds), key=lambda cls: (cls.__module__, cls.__qualname__))


def _below(cls: type[Thresholds]) -> Iterator[type[Thresholds]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)
