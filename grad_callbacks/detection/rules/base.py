"""What a rule is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from grad_callbacks.events import Alert, Kind
from grad_callbacks.measurement import Reading


@runtime_checkable
class Rule(Protocol):
    """RuleRunner the readings of one optimizer, one after the other.

    A rule of your own is a class with these members; nothing needs to be registered. It is pure: it sees
    readings only, and the same readings always give the same alerts. Each optimizer gets its own copy.

    It may have a property ``near``, true when an alert may come soon: activations are watched then, so that the
    diagnosis can tell of them, and the motion of every step is measured.

    Attributes:
        kind: The kind of alert that it raises.
    """

    kind: Kind

    @property
    def active(self) -> bool:
        """True while what it looks for is still there."""

    def judge(self, reading: Reading) -> Alert | None:
        """Take in one reading and return an alert if there is something new to say."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that later judgements depend on, as plain numbers, strings and lists."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
