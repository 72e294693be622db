"""Checks of the callbacks' arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from grad_callbacks.detection.rules import RULES, Rule, rule_of
from grad_callbacks.events import Alert


def rules_of(rules: Sequence[Any] | None) -> list[Rule]:
    """Return the rules that a list describes; all built-in ones for None.

    Raises:
        ValueError: If it is no list, or one of its entries is no rule.
    """
    if rules is None:
        rules = list(RULES)
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        raise ValueError(f"rules must be a list of rules, such as ['Exploding'], got {rules!r}")
    return [_rule(place, rule) for place, rule in enumerate(rules)]


def _rule(place: int, rule: Any) -> Rule:
    try:
        return rule_of(rule)
    except ValueError as error:
        raise ValueError(f"rules[{place}]: {error}") from error


def callable_or_none(on_alert: Callable[[Alert], object] | None) -> Callable[[Alert], object] | None:
    """Return ``on_alert`` if it can be called.

    Raises:
        ValueError: If it cannot.
    """
    if on_alert is not None and not callable(on_alert):
        raise ValueError(f"on_alert must be callable with an alert, such as a function or a Notify, got {on_alert!r}")
    return on_alert
