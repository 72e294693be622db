"""Imitates the rounding of another processor: weights that differ in their last digits after each step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

NOISE = 2e-7  # relative, about what float32 rounds to


@contextmanager
def other_rounding(seed: int) -> Iterator[None]:
    """Change the last digits of all weights after each step of any optimizer while this lasts.

    By how much depends on the weight and the seed alone: two runs that are the same to the bit stay so.
    """

    @torch.no_grad()
    def perturb(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.is_floating_point():
                    weight.mul_(1 + NOISE * torch.sin(1e5 * weight + seed))

    handle = register_optimizer_step_post_hook(perturb)
    try:
        yield
    finally:
        handle.remove()
