"""A multilayer perceptron whose outputs are no logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from experiments.models.mlp import MLP


class SquashedMLP(MLP):
    """A multilayer perceptron with one more activation behind its head, where the loss expects logits.

    Args:
        output: Makes that activation: softmax, sigmoid and ReLU are the usual mistakes.
        arguments: As for :class:`MLP`.
    """

    def __init__(self, output: Callable[[], nn.Module], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.output = output()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to squashed outputs ``(batch, out_features)``."""
        outputs: Tensor = self.output(super().forward(x))
        return outputs
