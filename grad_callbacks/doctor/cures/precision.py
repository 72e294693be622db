"""Full precision."""

from __future__ import annotations

from typing import ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup


class FullPrecision(Cure):
    """Trains in float32."""

    slot: ClassVar[str] = "precision"
    name = "Full precision"

    def applies(self, ill: Attempt) -> bool:
        """True if the Trainer uses 16 bits."""
        return "16" in ill.inspection.precision

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Set the Trainer's argument."""
        setup.trainer.pop("plugins", None)  # a precision of its own would be one too many
        setup.trainer["precision"] = "32-true"
        setup.module.float()
        return [f"`Trainer(precision={known.precision!r})` -> `Trainer(precision='32-true')`"]
