"""Low-rank adapters on a multilayer perceptron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.models.mlp import MLP, Block


class LowRank(nn.Module):
    """A linear layer plus a product of two small matrices, the second of which starts as zero (Hu et al. 2021).

    Args:
        base: The layer that is adapted.
        rank: Of the product.
        scale: Multiplies the product, as ``alpha / rank`` does.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.base = base
        self.adapter_a = nn.Linear(base.in_features, rank, bias=False)
        self.adapter_b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.adapter_b.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to ``(batch, out_features)``."""
        y: Tensor = self.base(x) + self.scale * self.adapter_b(self.adapter_a(x))
        return y


class AdaptedMLP(MLP):
    """A multilayer perceptron with an adapter at each hidden layer.

    Args:
        rank: Of the adapters.
        scale: As for :class:`LowRank`.
        arguments: As for :class:`MLP`.
    """

    def __init__(self, rank: int, scale: float = 1.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        with torch.no_grad():
            for block in self.blocks:
                assert isinstance(block, Block)
                block.linear = LowRank(block.linear, rank, scale)  # type: ignore[assignment]
