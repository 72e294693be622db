"""A trunk with two heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.models.stacks import stack


class TwoHeads(nn.Module):
    """A shared trunk with a head for the classes and one for a number.

    Args:
        in_features: Size of an input.
        out_features: Number of classes.
        depth: Hidden layers of the trunk.
        width: Units of a hidden layer.
        activation: Makes an activation.
    """

    def __init__(
        self, in_features: int, out_features: int, depth: int, width: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(stack([in_features, *[width] * depth], activation), activation())
        self.classes = nn.Linear(width, out_features)
        self.number = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)`` and a number ``(batch, 1)``."""
        features = self.trunk(x)
        return self.classes(features), self.number(features)
