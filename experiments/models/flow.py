"""A density of points that can be computed exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.stacks import stack


class Flow(nn.Module):
    """Affine coupling layers from the points to a normal distribution (Dinh et al. 2017).

    Args:
        in_features: Size of a point, an even number.
        out_features: Not used: a log density is one number.
        layers: Number of couplings.
        width: Units of the two hidden layers of a coupling.
        activation: Makes an activation.
        bound: What a coupling's log scale lies within; None: anything goes.
        spread: Of the couplings' last weights at the start. At 0 each starts as the identity.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        layers: int,
        width: int,
        activation: Callable[[], nn.Module],
        bound: float | None = 2.0,
        spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.bound = bound
        half = in_features // 2
        self.couplings = nn.ModuleList(stack([half, width, width, 2 * half], activation) for _ in range(layers))
        for coupling in self.couplings:
            assert isinstance(coupling, nn.Sequential)
            for parameter in coupling[-1].parameters():
                nn.init.zeros_(parameter)
            if spread:
                nn.init.normal_(coupling[-1].weight, std=spread)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map points ``(batch, in_features)`` to their log density ``(batch,)``."""
        log_determinant = torch.zeros(len(x))
        for coupling in self.couplings:
            kept, moved = x.chunk(2, dim=1)
            log_scale, shift = coupling(kept).chunk(2, dim=1)
            if self.bound is not None:
                log_scale = self.bound * torch.tanh(log_scale)
            x = torch.cat([moved * log_scale.exp() + shift, kept], dim=1)
            log_determinant = log_determinant + log_scale.sum(dim=1)
        normal = -0.5 * x.square().sum(dim=1) - x.shape[1] / 2 * math.log(2 * math.pi)
        return normal + log_determinant
