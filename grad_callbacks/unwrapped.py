"""The optimizer itself, where a framework has wrapped it."""

from __future__ import annotations

import torch

_WRAPPERS = ("_FabricOptimizer", "LightningOptimizer")


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that Fabric or Lightning has wrapped. Others that wrap one, such as Lookahead, step themselves."""
    if any(cls.__name__ in _WRAPPERS for cls in type(optimizer).__mro__):
        return optimizer.optimizer  # type: ignore[attr-defined, no-any-return]
    return optimizer
