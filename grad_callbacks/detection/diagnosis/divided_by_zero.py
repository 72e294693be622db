"""Whether an optimizer has divided by zero in a step: its weights are NaN, what it averages is not."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_SQUARES = ("exp_avg_sq", "square_avg")  # Adam and its variants, RMSprop


@dataclass(frozen=True)
class DividedByZero:
    """A step of Adam or RMSprop whose denominator ``sqrt(v) + eps`` was 0.

    Attributes:
        eps: Of the parameter group.
        dtype: Of the weights; ``eps`` may be 0 in it though it is not in the settings.
        cure: An ``eps`` that is not 0 in this type: the optimizer's default, or the type's smallest normal number.
    """

    eps: float
    dtype: torch.dtype
    cure: float


@torch.no_grad()
def divided_by_zero(optimizer: torch.optim.Optimizer | None) -> DividedByZero | None:
    """Look for weights that are not finite beside averages that are, and a denominator of 0; None without any."""
    for group in optimizer.param_groups if optimizer is not None else []:
        for parameter in group["params"]:
            bad = ~torch.isfinite(parameter)
            state = optimizer.state.get(parameter) if optimizer is not None else None
            if not isinstance(state, Mapping) or "eps" not in group or not bool(bad.any()):
                continue
            averages = [value for value in state.values() if isinstance(value, Tensor) and value.shape == bad.shape]
            squares = next((state[name] for name in _SQUARES if isinstance(state.get(name), Tensor)), None)
            if squares is None or squares.shape != bad.shape or not all(_is_finite(value[bad]) for value in averages):
                continue
            denominators = squares[bad].sqrt() + torch.as_tensor(group["eps"], dtype=squares.dtype)
            if bool((denominators == 0).any()):
                declared = inspect.signature(type(optimizer)).parameters.get("eps")
                usual = declared.default if declared is not None and isinstance(declared.default, float) else 0.0
                cure = max(torch.finfo(squares.dtype).tiny, usual)
                return DividedByZero(float(group["eps"]), squares.dtype, cure)
    return None


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
