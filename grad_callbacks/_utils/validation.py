"""Checks of arguments: each names the argument, the bad value and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real


def positive(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number above zero.

    Raises:
        ValueError: If it is not.
    """
    if not _is_number(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def fraction(name: str, value: float) -> float:
    """Return ``value`` as a float if it lies strictly between 0 and 1.

    Raises:
        ValueError: If it does not.
    """
    return between(name, value, 0, 1)


def between(name: str, value: float, low: float, high: float) -> float:
    """Return ``value`` as a float if it lies strictly between ``low`` and ``high``.

    Raises:
        ValueError: If it does not.
    """
    if not _is_number(value) or not low < value < high:
        raise ValueError(f"{name} must be a number between {low:g} and {high:g}, both excluded, got {value!r}")
    return float(value)


def at_least(name: str, value: int, minimum: int) -> int:
    """Return ``value`` as an int if it is a whole number not below ``minimum``.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return int(value)


def flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is True or False.

    Raises:
        ValueError: If it is not: ``"no"`` would count as True.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
