"""A run in which a trial is held, and whether two models have come out the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from grad_callbacks import GradientGuard
from tests.support.helpers import SGD, Regression, batches, fit, mlp


def train(guard: GradientGuard, *callbacks: Any) -> Regression:
    """A run of 80 steps, the same each time but for what is done to it."""
    torch.manual_seed(0)
    module = Regression(mlp(4, 16, 16, 2), partial(SGD, lr=0.03, momentum=0.5))
    fit(module, guard, *callbacks, data=batches(80))
    return module


def same(one: nn.Module, other: nn.Module) -> bool:
    """True if all weights and buffers are equal, bit by bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
