"""Mixture density nets."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, initialise
from experiments.models.stacks import stack


class MixtureDensity(nn.Module):
    """A net that answers with a mixture of normal distributions (Bishop 1994).

    Args:
        in_features: Size of an input.
        out_features: Not used: a target is one number.
        components: Number of normal distributions.
        depth: Hidden layers.
        width: Units of each.
        activation: Makes an activation.
        init: Initialises a linear layer in place.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        components: int,
        depth: int,
        width: int,
        activation: Callable[[], nn.Module],
        init: Init,
    ) -> None:
        super().__init__()
        whole_numbers(components=components, depth=depth, width=width)
        self.layers = stack([in_features, *[width] * depth, 3 * components], activation)
        initialise(self, init)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``(batch, in_features)`` to logits, means and log spreads, each ``(batch, components)``."""
        logits, means, log_spreads = self.layers(x).chunk(3, dim=1)
        return logits, means, log_spreads
