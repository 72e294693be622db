"""Mean-field theory: by what factor a wide random layer multiplies the error that comes back through it.

References:
    Poole et al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, "Deep Information Propagation", arXiv 1611.01232.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

REACH = 8.0  # deviations to both sides that the integrals go: 1e-15 of a normal distribution is beyond
POINTS = 4000  # of the integrals; an even number, so that none lies on the kink of ReLU
STEPS = 2000  # of the length map, at most: near a critical point it converges slowly
CLOSE = 1e-12  # relative change at which the length map has converged
HUGE = 1e100  # where the length map has diverged

_Z = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
_DENSITY = torch.exp(-_Z.square() / 2) / math.sqrt(2 * math.pi) * (2 * REACH / (POINTS - 1))


@dataclass(frozen=True)
class Layer:
    """What the theory asks of a layer.

    Attributes:
        weights: Fan-in times the mean square of the weights: sigma_w squared.
        bias_variance: Variance of the biases: sigma_b squared.
        bias_mean: Mean of the biases.
    """

    weights: float
    bias_variance: float = 0.0
    bias_mean: float = 0.0


def moments(activation: nn.Module, length: float, mean: float = 0.0) -> tuple[float, float]:
    """Return the mean squares of an activation and of its slope, for normal inputs.

    Args:
        activation: Works entry by entry.
        length: Variance of its inputs.
        mean: Mean of its inputs.
    """
    inputs = (mean + math.sqrt(length) * _Z).requires_grad_()
    outputs: Tensor = activation.double()(inputs)
    (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
    return float((_DENSITY * outputs.detach().square()).sum()), float((_DENSITY * slopes.square()).sum())


def factor(activation: nn.Module, layer: Layer, start: float = 1.0) -> float:
    """Return the factor per layer of the error's root mean square, deep in a net of equal layers.

    Args:
        activation: Of every layer.
        layer: Every layer.
        start: Mean square of the signal at the start.
    """
    length = start
    for _ in range(STEPS):
        square, _ = moments(activation, length, layer.bias_mean)
        found = layer.weights * square + layer.bias_variance
        if abs(found - length) <= CLOSE * length or not 1 / HUGE < found < HUGE:
            break
        length = found
    _, slope = moments(activation, length, layer.bias_mean)
    return math.sqrt(layer.weights * slope)


def factors(activation: nn.Module, layers: Sequence[Layer], inputs: float) -> list[float]:
    """Return the factors from each layer of a net to the one before it, the second layer's first.

    Args:
        activation: Of every layer.
        layers: From the input on.
        inputs: Mean square of the net's inputs.
    """
    found = []
    length = layers[0].weights * inputs + layers[0].bias_variance
    for before, layer in pairwise(layers):
        square, slope = moments(activation, length, before.bias_mean)
        found.append(math.sqrt(layer.weights * slope))
        length = layer.weights * square + layer.bias_variance
    return found
