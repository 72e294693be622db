"""Schedules that raise the rate in mid-run."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR


def one_cycle(optimizer: Optimizer, total_steps: int, peak: float = 10.0, rise: float = 0.3) -> LRScheduler:
    """Raise the rate to ``peak`` times the optimizer's, then lower it to nothing (Smith & Topin 2019).

    Momentum goes the other way, as torch does by default.

    Args:
        optimizer: Its rate is the one from which the cycle starts.
        total_steps: Length of the cycle.
        peak: Highest rate over the first.
        rise: Share of the steps in which the rate rises.
    """
    highest = [peak * group["lr"] for group in optimizer.param_groups]
    # Lightning asks for one value more than there are steps.
    return OneCycleLR(optimizer, highest, total_steps + 1, pct_start=rise, div_factor=peak)


def cyclic(optimizer: Optimizer, total_steps: int, peak: float = 10.0, cycles: int = 4) -> LRScheduler:
    """Let the rate rise to ``peak`` times the optimizer's and fall again, ``cycles`` times (Smith 2017)."""
    lowest = [group["lr"] for group in optimizer.param_groups]
    half = max(1, total_steps // (2 * cycles))
    return CyclicLR(optimizer, lowest, [peak * rate for rate in lowest], step_size_up=half, cycle_momentum=False)
