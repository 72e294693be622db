"""Learning rate and loss scale as they are kept with a snapshot."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rate_on_host(optimizer: torch.optim.Optimizer) -> float:
    """The first group's learning rate; NaN where it is not a number on the host."""
    rate = optimizer.param_groups[0].get("lr")
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return math.nan
    return math.nan if rate is None else float(rate)


def scale_of(scaler: torch.amp.GradScaler | None) -> list[Tensor]:
    """Scale, and steps since it was last changed: as tensors, since ``scaler.state_dict`` waits for the device."""
    found = [] if scaler is None else [scaler._scale, scaler._growth_tracker]
    return [value for value in found if value is not None]
