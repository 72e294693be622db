"""A warm-up of the learning rate."""

from __future__ import annotations

from typing import Any, ClassVar

from grad_callbacks.doctor.attempt import Attempt
from grad_callbacks.doctor.cures.base import AtStart, Cure
from grad_callbacks.doctor.inspection import Inspection
from grad_callbacks.doctor.setup import Setup

SHARE, MOST = 0.2, 100  # of all steps, and steps at most


class WarmUp(Cure):
    """Lets the learning rate rise in a line from nearly zero over the first steps."""

    slot: ClassVar[str] = "warm-up"
    name = "Warm-up"

    def applies(self, ill: Attempt) -> bool:
        """True if an optimizer has a rate."""
        return any(optimizer.lr > 0 for optimizer in ill.inspection.optimizers)

    def apply(self, setup: Setup, known: Inspection) -> list[str]:
        """Scale the rate within each of the first steps."""
        setup.callbacks.insert(0, AtStart(_warm_up))
        return [
            f"`torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters={MOST})`, with "
            "`scheduler.step()` after every step"
        ]


def _warm_up(trainer: Any) -> None:
    for optimizer in trainer.optimizers:
        ramp = _Ramp(max(1, min(MOST, int(SHARE * (trainer.max_steps if trainer.max_steps > 0 else MOST / SHARE)))))
        optimizer.register_step_pre_hook(ramp.before)
        optimizer.register_step_post_hook(ramp.after)


class _Ramp:
    """The rate as it is in the optimizer is left to its schedule."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._rates: list[Any] = []

    def before(self, optimizer: Any, *_: Any) -> None:
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * min(1.0, (self._done + 1) / self._steps)

    def after(self, optimizer: Any, *_: Any) -> None:
        self._done += 1
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
