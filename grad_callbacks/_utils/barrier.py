"""A barrier around what users bring: it may fail, and the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("grad_callbacks")


class Barrier:
    """Calls rules, remedies and functions; one that raises is logged with its traceback and left out from then on.

    KeyboardInterrupt, SystemExit and everything else that is no Exception passes. A barrier that is copied or pickled
    together with what it has left out goes on leaving it out.

    Attributes:
        lets_through: Errors are raised, as in a trial, where a remedy that fails has lost.
    """

    def __init__(self) -> None:
        self.lets_through = False
        self._left_out: list[object] = []

    @property
    def failed(self) -> int:
        """How many have raised so far."""
        return len(self._left_out)

    def leaves_out(self, owner: object) -> bool:
        """True once ``owner`` has raised."""
        return bool(self._left_out) and any(each is owner for each in self._left_out)

    def call(self, owner: object, action: Callable[..., T], *arguments: Any, default: T) -> T:
        """Return ``action(*arguments)``, or ``default`` if it raises or ``owner`` has raised before.

        Args:
            owner: The rule, remedy or function that is left out after an error.
            action: One of its methods, or itself.
            arguments: What it is called with.
            default: What stands in for its result.
        """
        if self._left_out and self.leaves_out(owner):
            return default
        if self.lets_through:
            return action(*arguments)
        try:
            return action(*arguments)
        except Exception:
            self._left_out.append(owner)
            name = getattr(owner, "__name__", type(owner).__name__)
            log.exception("%s raised an error and is left out from now on; the training goes on", name)
            return default
