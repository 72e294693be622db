"""A generator and its adversary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.stacks import stack


class Adversaries(nn.Module):
    """A generator of points and a discriminator that tells them from real ones (Goodfellow et al. 2014).

    Args:
        in_features: Size of a point.
        out_features: Not used.
        latent: Size of the noise that the generator starts from.
        width: Units of a hidden layer of either.
        depth: Hidden layers of either.
        activation: Makes an activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        latent: int,
        width: int,
        depth: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.latent = latent
        self.generator = stack([latent, *[width] * depth, in_features], activation)
        self.discriminator = stack([in_features, *[width] * depth, 1], activation)

    def forward(self, count: int) -> Tensor:
        """Generate ``count`` points ``(count, in_features)``."""
        points: Tensor = self.generator(torch.randn(count, self.latent))
        return points
