"""Points in the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.data.arrays import Arrays


def moons(count: int, noise: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other."""
    labels = torch.arange(count) % 2
    angle = math.pi * torch.rand(count, generator=draw)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    points = torch.where(labels[:, None] == 0, upper, torch.tensor([1.0, 0.5]) - upper)
    return points + noise * torch.randn(count, 2, generator=draw), labels


def ring(count: int, noise: float, draw: torch.Generator, modes: int = 8) -> tuple[Tensor, Tensor]:
    """Eight normal distributions on a circle, as usual for adversarial networks."""
    labels = torch.arange(count) % modes
    angle = 2 * math.pi * labels / modes
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    return points + noise * torch.randn(count, 2, generator=draw), labels


def spirals(count: int, noise: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two arms around each other."""
    labels = torch.arange(count) % 2
    turn = 3 * math.pi * torch.rand(count, generator=draw).sqrt()
    arm = torch.stack([turn * turn.cos(), turn * turn.sin()], dim=1) / (3 * math.pi)
    points = torch.where(labels[:, None] == 0, arm, -arm)
    return points + noise * torch.randn(count, 2, generator=draw), labels


SHAPES = {"moons": moons, "ring": ring, "spirals": spirals}


class Plane(Arrays):
    """Points in the plane with the number of the part that they belong to.

    Args:
        shape: ``moons``, ``ring`` or ``spirals``.
        noise: Spread around the shape.
        count: Points to train on; half as many validate.
        batch_size: Points per batch.
        split_seed: Draws the points.
    """

    in_features = 2

    def __init__(
        self, shape: str, noise: float = 0.1, count: int = 2000, batch_size: int = 64, split_seed: int = 0
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
        draw = torch.Generator().manual_seed(split_seed)
        train, val = (SHAPES[shape](size, noise, draw) for size in (count, count // 2))
        self.out_features = int(train[1].max()) + 1
        super().__init__(train, val, batch_size)
