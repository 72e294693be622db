"""A second optimizer for the same parameters, which leaves nothing behind."""

from __future__ import annotations

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_OF_THE_ORIGINAL = ("step", "grad_scale", "found_inf")  # a scheduler counts the steps; the others are of one step
_HOOKS = re.compile(r"_optimizer_\w+_hooks")


def can_be_copied(optimizer: torch.optim.Optimizer) -> bool:
    """False for an optimizer that steps others, or that needs a closure."""
    steps_others = any(isinstance(value, torch.optim.Optimizer) for value in _within(vars(optimizer)))
    return not steps_others and not isinstance(optimizer, torch.optim.LBFGS)


def copy_of(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> torch.optim.Optimizer:
    """Return an optimizer of the same class and parameters, without hooks, with a copy of all else that it has.

    Args:
        optimizer: Stays as it is.
        rates: The learning rate of each group; NaN where it has none, or none that the host knows.
    """
    copied = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    memo[id(optimizer)] = copied  # for methods that are bound to it
    for name, value in vars(optimizer).items():
        if name not in _OF_THE_ORIGINAL:
            copied.__dict__[name] = OrderedDict() if _HOOKS.fullmatch(name) else copy.deepcopy(value, memo)
    for group, rate in zip(copied.param_groups, rates, strict=True):
        if math.isfinite(rate):
            group["lr"] = group["lr"].fill_(rate) if isinstance(group.get("lr"), Tensor) else rate
    return copied


def _within(attributes: Mapping[str, Any]) -> Iterator[Any]:
    """All values, and the entries of those that are containers."""
    for value in attributes.values():
        yield value
        if isinstance(value, (Mapping, list, tuple, set)):
            yield from value.values() if isinstance(value, Mapping) else value
