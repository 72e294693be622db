"""What is known of an optimizer: what it is beneath a framework's wrapper, and how it treats scaled gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_WRAPPERS = ("_FabricOptimizer", "LightningOptimizer", "AcceleratedOptimizer")


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that Fabric, Lightning or Accelerate has wrapped. Others, such as Lookahead, step themselves."""
    if any(cls.__name__ in _WRAPPERS for cls in type(optimizer).__mro__):
        return optimizer.optimizer  # type: ignore[attr-defined, no-any-return]
    return optimizer


def unscales_itself(optimizer: torch.optim.Optimizer) -> bool:
    """True for an optimizer that divides by the loss scale in its own step, as a loss scaler sees it."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """True for a fused optimizer: it reads from the device what to divide by, and whether to step at all."""
    # Loading the state of another optimizer changes the groups and leaves the flag.
    return unscales_itself(optimizer) and all(group.get("fused") for group in optimizer.param_groups)


def can_skip_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """True for a fused optimizer whose skipped step is an exact no-op."""
    if not is_fused(optimizer):
        return False
    # A first step of fused SGD leaves uninitialised momentum behind if it is skipped on the device.
    return not isinstance(optimizer, torch.optim.SGD) or all(
        not group["momentum"] or optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        for group in optimizer.param_groups
        for parameter in group["params"][:1]
    )


def has_stepped(state: Any) -> bool:
    """True for a parameter's state that an optimizer has after a step; some keep numbers beside such states."""
    if not isinstance(state, Mapping):
        return False
    step = state.get("step", 0)
    counted = isinstance(step, (int, float, torch.Tensor)) and bool(step > 0)
    return counted or isinstance(state.get("momentum_buffer"), torch.Tensor)
