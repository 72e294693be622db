"""Another learning rate."""

from __future__ import annotations

from typing import Any, ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import AtStart, Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup

OF_GROUPS = ("lr", "initial_lr", "max_lr", "min_lr")
OF_SCHEDULES = ("base_lrs", "max_lrs", "min_lrs", "eta_min", "_last_lr")


def _plain(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


class LearningRate(Cure):
    """Multiplies every learning rate, those that schedules go through as well.

    Args:
        factor: Of the rate as it is.
    """

    slot: ClassVar[str] = "rate"

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.name = f"Learning rate / {_plain(1 / factor)}" if factor < 1 else f"Learning rate x {factor:.3g}"

    def applies(self, ill: Attempt) -> bool:
        """True if an optimizer has a rate."""
        return any(optimizer.lr > 0 for optimizer in ill.inspection.optimizers)

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Scale the rates when the optimizers are there."""
        setup.callbacks.insert(0, AtStart(self._scale))
        told = {f"lr={found.lr:.3g} -> {found.lr * self.factor:.3g} in {found.kind}": 0 for found in known.optimizers}
        return list(told)

    def _scale(self, trainer: Any) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for name in OF_GROUPS:
                    if isinstance(group.get(name), float | int):
                        group[name] *= self.factor
        for config in trainer.lr_scheduler_configs:
            self._scale_schedule(config.scheduler)

    def _scale_schedule(self, scheduler: Any) -> None:
        for name in OF_SCHEDULES:
            value = getattr(scheduler, name, None)
            if isinstance(value, list):
                setattr(scheduler, name, [rate * self.factor for rate in value])
            elif isinstance(value, float | int):
                setattr(scheduler, name, value * self.factor)
        for inner in getattr(scheduler, "_schedulers", ()):
            self._scale_schedule(inner)
