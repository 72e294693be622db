"""The guard with a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup


class Guard(Cure):
    """A :class:`~grad_callbacks.GradientGuard` in the monitor's place.

    Args:
        name: After "The guard".
        prescription: Its remedies; None for the default ones.
    """

    slot: ClassVar[str] = "guard"

    def __init__(self, name: str = "", prescription: Mapping[str, Sequence[Any]] | None = None) -> None:
        self.name = f"The guard{' with ' + name if name else ''}"
        self.prescription = prescription

    def applies(self, ill: Attempt) -> bool:
        """True if there is an alert that it answers."""
        return bool(ill.kind) if self.prescription is None else ill.kind in self.prescription

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Let it watch."""
        if self.prescription is None:
            setup.guard = {}
            return ["`Trainer(callbacks=[GradientGuard()])`"]
        setup.guard = {"prescription": self.prescription}
        return [f"`Trainer(callbacks=[GradientGuard(prescription={dict(self.prescription)})])`"]
