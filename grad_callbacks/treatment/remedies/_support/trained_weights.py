"""Tell trained layers from freshly initialised ones, by their largest singular value and their biases.

Initialisations draw entries independently of each other, or make orthogonal matrices, and fill biases with one constant
or uniformly. Training moves weights along few directions, so their largest singular values rise beyond the edge of a
random matrix (Martin & Mahoney 2021, "Implicit Self-Regularization in Deep Neural Networks", sec. 3), and biases get
outliers. Large weights that were trained for a short while show it by their biases only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class TrainedWeightsThresholds(Thresholds):
    """The numbers of :func:`trained_layers`."""

    singular_value: float = threshold(
        1.25,
        "largest singular value, over that of a random matrix of the same shape, from which on a weight counts as "
        "trained",
        unit="1",
        source="measured: of 88,000 random matrices of 64 to 1024 entries none reached 1.17; hidden layers as torch "
        "makes them had 1.2 to 1.6 after two epochs on digits, 1.37 and more after four",
    )
    power_iterations: int = threshold(
        12,
        "rounds of the power method that finds the largest singular value",
        unit="rounds",
        source="measured: within 0.08 of the exact ratio on the same layers, mostly within 0.02",
    )
    bias_outlier: float = threshold(
        2.5,
        "standard deviations from its mean from which on a bias's entry was trained; uniform ones end at sqrt(3)",
        unit="1",
        source="measured: 0.8% of uniform biases with 12 entries have one, 0.2% of those with 32; after 400 steps on "
        "digits most biases have",
    )


LIMITS = TrainedWeightsThresholds()

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@torch.no_grad()
def trained_layers(model: nn.Module, earlier: Mapping[int, Tensor] | None = None) -> list[str]:
    """Return the names of the layers whose weights do not look freshly drawn; none for a fresh model.

    Linear layers, convolutions, recurrent layers and attention are looked at.

    Args:
        model: Is looked at.
        earlier: What parameters were before, by their id, to be looked at instead of what they are.
    """
    found, known = [], earlier or {}
    for name, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        values = [known.get(id(parameter), parameter) for parameter in module.parameters(recurse=False)]
        gates = [gate for value in values if value.ndim < 2 for gate in _gates(module, value)]
        if not all(_is_fresh(value) for value in values if value.ndim >= 2) or any(map(_has_outlier, gates)):
            found.append(name or type(module).__name__)
    return found


def _is_fresh(weight: Tensor) -> bool:
    """True for a weight whose entries look drawn independently of each other, or orthogonal."""
    matrix = weight.detach().flatten(1).float()
    if not bool(torch.isfinite(matrix).all()):
        return False
    deviation, mean = (float(value) for value in torch.std_mean(matrix, correction=0))
    if deviation <= torch.finfo(matrix.dtype).eps * abs(mean):
        return True  # one constant
    rows, columns = matrix.shape
    edge = deviation * (math.sqrt(rows) + math.sqrt(columns))
    return _largest_singular_value(matrix - mean) < LIMITS.singular_value * edge


def _gates(module: nn.Module, bias: Tensor) -> tuple[Tensor, ...]:
    """The parts of a gated cell's bias, one for each gate; any other bias is one part."""
    gates = bias.numel() // getattr(module, "hidden_size", bias.numel())
    parts: tuple[Tensor, ...] = bias.tensor_split(max(1, gates))
    return parts


def _has_outlier(bias: Tensor) -> bool:
    """True for a bias with an entry far from the others, or one that is not finite."""
    values = bias.detach().float()
    distances = (values - values.mean()).abs()
    least = torch.finfo(values.dtype).eps * values.abs().max()  # the rounding of one constant
    return not float(distances.max()) <= LIMITS.bias_outlier * float(values.std(correction=0)) + float(least)


def _largest_singular_value(matrix: Tensor) -> float:
    """A close lower bound, by the power method from a start that is always the same."""
    least = torch.finfo(matrix.dtype).tiny
    vector = torch.linspace(1.0, 2.0, matrix.shape[1], device=matrix.device)
    vector = vector * (1 - 2 * (torch.arange(matrix.shape[1], device=matrix.device) % 2))
    for _ in range(LIMITS.power_iterations):
        image = matrix @ vector
        vector = matrix.t() @ (image / image.norm().clamp_min(least))
        size = vector.norm()
        vector = vector / size.clamp_min(least)
    return float(size)
