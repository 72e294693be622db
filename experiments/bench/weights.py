"""A model of weights and gradients alone, and an optimizer that costs next to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from experiments.bench.shapes import Shapes
from experiments.bench.timing import DEVICE

_WEIGHT, _GRADIENT, _NUDGE = 0.02, 1e-3, 1e-6


class Weights(nn.Module):
    """Layers of one tensor each, whose gradients are set.

    The weights lie in one piece of memory, so that a few entries of all of them can be changed at once.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        sizes = [math.prod(shape) for shape in shapes]
        self._all = torch.full((sum(sizes),), _WEIGHT, device=DEVICE)
        self._starts = torch.tensor([0, *accumulate(sizes[:-1])], device=DEVICE)
        self._nudges = torch.full((len(sizes),), _NUDGE, device=DEVICE)
        parts = zip(self._all.split(sizes), shapes, strict=True)
        self.layers = nn.ModuleList(_Layer(part.view(shape)) for part, shape in parts)

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of all layers."""
        return [parameter.grad for parameter in self.parameters() if parameter.grad is not None]

    def restore(self) -> None:
        """Give the gradients their first values again."""
        for gradient in self.gradients:
            gradient.fill_(_GRADIENT)

    def nudge(self) -> None:
        """Move each tensor a little, in its first entry."""
        self._all.index_add_(0, self._starts, self._nudges)


class Nudging(torch.optim.SGD):
    """Moves :class:`Weights` a little, with its hooks, and without the cost of a pass over them."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights.parameters(), lr=1e-3)
        self._weights = weights

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nudge."""
        self._weights.nudge()


class _Layer(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.weight.grad = torch.full(weight.shape, _GRADIENT, device=weight.device)
