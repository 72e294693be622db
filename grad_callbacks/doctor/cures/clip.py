"""Clipping by norm."""

from __future__ import annotations

import math
from typing import ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup


class Clip(Cure):
    """Lets the Trainer clip the gradient's norm.

    Args:
        norm: To which.
    """

    slot: ClassVar[str] = "clip"

    def __init__(self, norm: float = 1.0) -> None:
        self.norm = float(f"{norm:.2g}") if math.isfinite(norm) and norm > 0 else 1.0
        self.name = f"Clip at {self.norm:g}"

    def applies(self, ill: Attempt) -> bool:
        """True if the Trainer does not clip yet, and could: not in manual optimization."""
        return not ill.inspection.is_manual and not 0 < ill.inspection.clips <= self.norm

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Set the Trainer's argument."""
        setup.trainer["gradient_clip_val"] = self.norm
        setup.bounds_steps = True
        return [f"`Trainer(gradient_clip_val={self.norm:g})`"]
