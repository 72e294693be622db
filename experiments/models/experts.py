"""Models of which a batch does not use every part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.stacks import stack


class Experts(nn.Module):
    """Experts of which a gate picks one for each input (Fedus et al. 2021).

    An expert that no input of a batch is sent to has no gradient in that step.

    Args:
        in_features: Size of an input.
        out_features: Number of outputs.
        experts: Number of experts.
        spare: So many of them are never picked.
        width: Units of an expert's hidden layer.
        activation: Makes an activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        experts: int,
        spare: int,
        width: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        if not 0 <= spare < experts:
            raise ValueError(f"spare must be from 0 to experts - 1, got {spare!r}")
        self.gate = nn.Linear(in_features, experts - spare)
        self.experts = nn.ModuleList(
            stack([in_features, width, width, out_features], activation) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        weight, picked = self.gate(x).softmax(dim=1).max(dim=1)
        rows, outputs = [], []
        for number, expert in enumerate(self.experts):
            mine = torch.nonzero(picked == number).flatten()
            if len(mine):
                rows.append(mine)
                outputs.append(expert(x[mine]))
        return weight[:, None] * torch.cat(outputs)[torch.cat(rows).argsort()]


class Branches(nn.Module):
    """A net with a branch that is never run and one whose output is multiplied by zero.

    The one has no gradient, the other's is zero.

    Args:
        in_features: Size of an input.
        out_features: Number of outputs.
        depth: Hidden layers of each branch.
        width: Units of a hidden layer.
        activation: Makes an activation.
    """

    def __init__(
        self, in_features: int, out_features: int, depth: int, width: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.used, self.muted, self.unused = (
            stack([in_features, *[width] * depth, out_features], activation) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        logits: Tensor = self.used(x) + 0.0 * self.muted(x)
        return logits
