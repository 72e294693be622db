"""A net whose layers are the steps of a differential equation's solution."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, initialise
from experiments.models.stacks import stack


class NeuralODE(nn.Module):
    """The state follows ``dx/dt = f(x) - decay * x`` by Euler's method, from a linear stem to a linear head.

    ``f`` has two layers (Chen et al. 2018). A step of Euler's method multiplies what decays by ``1 - decay * horizon /
    steps``: beyond 2 steps of decay it grows instead, the stiff case.

    Args:
        in_features: Size of an input.
        out_features: Number of outputs.
        width: Size of the state, and of f's hidden layer.
        steps: Steps of Euler's method.
        activation: Makes f's activation.
        init: Initialises a linear layer in place.
        horizon: Time at the end.
        decay: Rate at which the state decays by itself.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int,
        steps: int,
        activation: Callable[[], nn.Module],
        init: Init,
        horizon: float = 1.0,
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        whole_numbers(width=width, steps=steps)
        self.stem = nn.Linear(in_features, width)
        self.field = stack([width, width, width], activation)
        self.head = nn.Linear(width, out_features)
        self.steps = steps
        self.stride = horizon / steps
        self.decay = decay
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to outputs ``(batch, out_features)``."""
        state: Tensor = self.stem(x)
        for _ in range(self.steps):
            state = state + self.stride * (self.field(state) - self.decay * state)
        outputs: Tensor = self.head(state)
        return outputs
