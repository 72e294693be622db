"""A second optimizer for the same parameters, which leaves nothing behind."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OF_THE_ORIGINAL = ("step", "grad_scale", "found_inf")  # a scheduler counts the steps; the others are of one step


def has_twin(optimizer: torch.optim.Optimizer) -> bool:
    """False for an optimizer that steps another one, or that needs a closure."""
    steps_another = any(isinstance(value, torch.optim.Optimizer) for value in vars(optimizer).values())
    return not steps_another and not isinstance(optimizer, torch.optim.LBFGS)


def twin_of(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> torch.optim.Optimizer:
    """Return an optimizer of the same class and parameters, with copies of state and groups and without hooks.

    Args:
        optimizer: Stays as it is.
        rates: The learning rate of each group; NaN where it has none, or none that the host knows.
    """
    twin = object.__new__(type(optimizer))
    twin.__dict__.update({key: value for key, value in vars(optimizer).items() if key not in _OF_THE_ORIGINAL})
    twin._optimizer_step_pre_hooks = OrderedDict()
    twin._optimizer_step_post_hooks = OrderedDict()
    twin.param_groups = [_group(group, rate) for group, rate in zip(optimizer.param_groups, rates, strict=True)]
    state = {parameter: copy.deepcopy(values) for parameter, values in optimizer.state.items()}
    twin.state = defaultdict(dict, state)
    return twin


def _group(group: dict[str, Any], rate: float) -> dict[str, Any]:
    made = dict(group)
    if isinstance(made.get("lr"), Tensor):
        made["lr"] = made["lr"].clone()
        if math.isfinite(rate):
            made["lr"].fill_(rate)
    elif math.isfinite(rate):
        made["lr"] = rate
    return made
