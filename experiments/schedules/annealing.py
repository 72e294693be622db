"""Schedules that only lower the rate, or lower it again and again."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LRScheduler,
    MultiStepLR,
)


def cosine(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Lower the rate to zero along half a cosine (Loshchilov & Hutter 2017)."""
    return CosineAnnealingLR(optimizer, T_max=total_steps)


def cosine_restarts(optimizer: Optimizer, total_steps: int, cycles: int = 4) -> LRScheduler:
    """Lower the rate to zero ``cycles`` times; each time it jumps back to its full size (Loshchilov & Hutter 2017)."""
    return CosineAnnealingWarmRestarts(optimizer, T_0=max(1, total_steps // cycles))


def exponential(optimizer: Optimizer, total_steps: int, final: float = 0.01) -> LRScheduler:
    """Lower the rate by the same factor at each step, down to the share ``final``."""
    return ExponentialLR(optimizer, gamma=final ** (1 / total_steps))


def steps(optimizer: Optimizer, total_steps: int, factor: float = 0.1, drops: int = 2) -> LRScheduler:
    """Multiply the rate by ``factor`` at ``drops`` evenly spaced steps."""
    return MultiStepLR(optimizer, [total_steps * (i + 1) // (drops + 1) for i in range(drops)], gamma=factor)
