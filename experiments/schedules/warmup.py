"""Schedules that start with a small rate. Without ``start`` the first step has a rate of zero and changes nothing."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def warmup(optimizer: Optimizer, total_steps: int, rise: int = 50, start: float = 0.0) -> LRScheduler:
    """Raise the rate evenly from the share ``start`` over ``rise`` steps, then keep it."""
    return LambdaLR(optimizer, lambda step: _risen(step, rise, start))


def warmup_cosine(optimizer: Optimizer, total_steps: int, rise: int = 50, start: float = 0.0) -> LRScheduler:
    """Raise the rate as :func:`warmup` does, then lower it to zero along half a cosine."""

    def share(step: int) -> float:
        if step < rise:
            return _risen(step, rise, start)
        done = min(1.0, (step - rise) / max(1, total_steps - rise))
        return (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, share)


def inverse_root(optimizer: Optimizer, total_steps: int, rise: int = 50) -> LRScheduler:
    """Raise the rate over ``rise`` steps, then lower it with the root of the step (Vaswani et al. 2017)."""
    return LambdaLR(optimizer, lambda step: min((step + 1) / rise, math.sqrt(rise / (step + 1))))


def _risen(step: int, rise: int, start: float) -> float:
    return start + (1 - start) * min(1.0, step / rise)
