"""Adaptive gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from experiments.scoreboard.repair.published.base import Clipping


class AGC(Clipping):
    """Clips each unit's gradient to ``ratio`` times the norm of its weights, but the last weight's and what follows.

    References:
        Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", eq. 3: ratio 0.01,
        weights counted with a norm of 1e-3 at least, not the final linear layer.
    """

    def __init__(self, ratio: float = 0.01, least: float = 1e-3) -> None:
        self.ratio, self.least = ratio, least

    def clip(self, parameters: Sequence[Tensor], module: LightningModule, index: int) -> None:
        """Clip."""
        weights = [i for i, parameter in enumerate(parameters) if parameter.dim() > 1]
        for parameter in parameters[: weights[-1]] if weights else parameters:
            if parameter.grad is not None and not parameter.grad.is_sparse:
                bound = self.ratio * _norms(parameter.detach()).clamp(min=self.least)
                norms = _norms(parameter.grad)
                clipped = parameter.grad * (bound / norms.clamp(min=1e-6))
                parameter.grad.copy_(torch.where(norms > bound, clipped, parameter.grad))


def _norms(tensor: Tensor) -> Tensor:
    """Norm of each unit, or of the whole of a vector."""
    others = tuple(range(1, tensor.dim()))
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=others or None, keepdim=bool(others))
    return norms
