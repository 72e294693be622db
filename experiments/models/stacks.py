"""Linear layers with activations between them, the common part of several models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def stack(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Make linear layers of the given sizes, with an activation between any two and none at the end."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])
