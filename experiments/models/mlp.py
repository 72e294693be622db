"""A multilayer perceptron, with what its layers may have between them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Linear layer, normalisation, activation; with a skip around them where asked for and shapes agree."""

    def __init__(self, linear: nn.Linear, norm: nn.Module, activation: nn.Module, residual: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = norm
        self.activation = activation
        self.residual = residual and linear.in_features == linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to ``(batch, out_features)``."""
        y: Tensor = self.activation(self.norm(self.linear(x)))
        return x + y if self.residual else y


class MLP(nn.Module):
    """Multilayer perceptron.

    Args:
        in_features: Size of an input.
        out_features: Number of outputs.
        depth: Number of hidden layers.
        width: Units of a hidden layer.
        activation: Makes an activation.
        norm: Makes a normalisation of a given width.
        init: Initialises a linear layer in place.
        residual: Put a skip around each hidden layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        width: int,
        activation: Callable[[], nn.Module],
        norm: Callable[[int], nn.Module],
        init: Callable[[nn.Linear], None],
        residual: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("depth", depth), ("width", width)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not isinstance(residual, bool):
            raise ValueError(f"residual must be true or false, got {residual!r}")
        sizes = [in_features] + [width] * depth
        self.blocks = nn.Sequential(
            *(
                Block(nn.Linear(fan_in, fan_out), norm(fan_out), activation(), residual)
                for fan_in, fan_out in pairwise(sizes)
            )
        )
        self.head = nn.Linear(width, out_features)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    init(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        logits: Tensor = self.head(self.blocks(x))
        return logits
