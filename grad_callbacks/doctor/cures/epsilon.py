"""The eps of adaptive optimizers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import AtStart, Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup

LARGER, SMALLER = 1e-5, 1e-15  # where gradients are usual, and where they are no larger than eps


class Epsilon(Cure):
    """Another eps: a larger one where steps explode after the gradients became small, a smaller one where they are."""

    slot: ClassVar[str] = "eps"

    def __init__(self, eps: float) -> None:
        self.eps, self.name = eps, f"eps {eps:g}"

    def applies(self, ill: Attempt) -> bool:
        """True if an optimizer has an eps."""
        return any(found.eps > 0 and not math.isclose(found.eps, self.eps) for found in ill.inspection.optimizers)

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Set it when the optimizers are there."""
        setup.callbacks.insert(0, AtStart(self._set))
        return list({f"eps={o.eps:g} -> {self.eps:g} in {o.kind}": 0 for o in known.optimizers if o.eps > 0})

    def _set(self, trainer: Any) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if isinstance(group.get("eps"), float):
                    group["eps"] = self.eps
