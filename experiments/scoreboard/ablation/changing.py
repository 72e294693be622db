"""Changes: a number of the rules at another value, or one of their conditions left out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any

from experiments.thresholds import package_thresholds
from grad_callbacks._utils.thresholds import Thresholds
from grad_callbacks.detection.rules import RULES

PLUGIN = "grad_callbacks."
MODULES = ("detection.rules.", "measurement.loss_level", "measurement.depth_profile")
FIRST_STEP = "first_step"  # beside the names of the rules: the judgement on a run's first reading
HUGE = 1e12  # stands for infinity, which some rules refuse
FACTORS = {"0": 1 / HUGE, "half": 0.5, "double": 2.0, "infinite": HUGE}
NAMES = {factor: name for name, factor in FACTORS.items()}
LEFT_OUT = "left out"
CONDITIONS = "CONDITIONS"  # the table of a rule's conditions in its module


@dataclass(frozen=True)
class Change:
    """One change of the rules.

    Attributes:
        module: Where it is, below ``grad_callbacks``.
        owner: The dataclass of a number; ``CONDITIONS`` for a condition.
        entry: The number's or condition's name.
        factor: On the number; NaN for a condition, which is left out.
    """

    module: str
    owner: str
    entry: str
    factor: float = math.nan

    @property
    def subject(self) -> str:
        """What is changed."""
        return f"{self.module.rpartition('.')[2] if self.owner == CONDITIONS else self.owner}.{self.entry}"

    @property
    def what(self) -> str:
        """How it is changed."""
        return NAMES.get(self.factor, LEFT_OUT)


def all_changes() -> list[Change]:
    """Return every number of the rules at each factor, and every condition."""
    changes = []
    for owner in package_thresholds():
        module = owner.__module__.removeprefix(PLUGIN)
        if module.startswith(MODULES):
            changes += [Change(module, owner.__name__, f.name, factor) for f in fields(owner) for factor in NAMES]
    for name in sorted({module for rule in (*RULES, FIRST_STEP) for module in _read_by(rule)}):
        module = name.removeprefix(PLUGIN)
        changes += [Change(module, CONDITIONS, _word(key)) for key in getattr(import_module(name), CONDITIONS, ())]
    return changes


def readers(change: Change) -> tuple[str, ...]:
    """Return the rules whose code reads what is changed, and :data:`FIRST_STEP` if the first judgement does."""
    return tuple(rule for rule in (*RULES, FIRST_STEP) if PLUGIN + change.module in _read_by(rule))


@contextmanager
def changed(change: Change) -> Iterator[bool]:
    """Make a change until the block ends; False where it would change nothing."""
    module = import_module(PLUGIN + change.module)
    if change.owner == CONDITIONS:
        table = getattr(module, CONDITIONS)
        usual = dict(table)
        del table[next(key for key in table if _word(key) == change.entry)]
        try:
            yield True
        finally:
            table.clear()
            table.update(usual)
        return
    cls = getattr(module, change.owner)
    instances = [value for value in vars(module).values() if type(value) is cls]
    before = getattr(instances[0], change.entry)
    value = _times(before, change.factor)
    try:
        for instance in instances:
            object.__setattr__(instance, change.entry, value)
        yield value != before
    finally:
        for instance in instances:
            object.__setattr__(instance, change.entry, before)


def specs(rule: str) -> Any:
    """Describe a rule with its present numbers: those that are arguments are given as such."""
    arguments = [key for key in RULES[rule].__init__.__annotations__ if key != "return"]
    limits = next(
        value
        for name in (RULES[rule].__module__, f"{RULES[rule].__module__}_thresholds")
        for value in vars(sys.modules.get(name, sys)).values()
        if isinstance(value, Thresholds) and set(arguments) <= set(vars(value))
    )
    return {rule: {key: getattr(limits, key) for key in arguments}}


def _times(value: Any, factor: float) -> Any:
    if not isinstance(value, int | float):
        return value
    if isinstance(value, int):
        return round(value * factor) if factor != FACTORS["half"] else max(1, value // 2)
    return value * factor


def _word(key: Any) -> str:
    return str(getattr(key, "name", key)).lower()


@cache
def _read_by(rule: str) -> frozenset[str]:
    """The modules that a rule's own module reads, directly or not."""
    found: set[str] = set()
    due = [RULES[rule].__module__ if rule in RULES else f"{PLUGIN}detection.rules.{FIRST_STEP}"]
    while due:
        name = due.pop()
        if name in found or not name.startswith(PLUGIN):
            continue
        found.add(name)
        values = vars(import_module(name)).values()
        due += [str(getattr(value, "__module__", type(value).__module__)) for value in values]
    return frozenset(found)
