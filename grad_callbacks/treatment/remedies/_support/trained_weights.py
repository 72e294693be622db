"""Evidence that weights are still as an initialisation has left them.

Nobody tells a callback whether weights were trained before. They show it: initialisations draw entries independently
of each other, around zero, from a uniform or a normal distribution, or make orthogonal matrices, and fill biases with
one constant or uniformly. Training leaves heavy tails in the entries and singular values far beyond the edge of a
random matrix (Martin & Mahoney 2021, "Implicit Self-Regularization in Deep Neural Networks", sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

TAILS = 3.6  # fourth moment over the squared second; 3 for a normal, 1.8 for a uniform distribution
EDGE = 1.25  # over the largest singular value of a random matrix of this shape
CHANCE = 20  # layers of which one may look trained by chance
FEW = 64  # entries below which statistics tell nothing
ITERATIONS = 12  # of the power method
LARGEST = 4096 * 4096  # entries beyond which a slice of the rows stands for the matrix

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@torch.no_grad()
def trained_layers(model: nn.Module, earlier: Mapping[int, Tensor] | None = None) -> list[str]:
    """Return the names of the layers whose weights do not look freshly drawn; none for a fresh model.

    Linear layers, convolutions, recurrent layers and attention are looked at. Weights that are one constant, all
    zeros say, count as fresh, and so do those of fewer than 64 entries.

    Args:
        model: Is looked at.
        earlier: What parameters were before, by their id, to be looked at instead of what they are.
    """
    found, known = [], earlier or {}
    for name, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        values = [known.get(id(parameter), parameter) for parameter in module.parameters(recurse=False)]
        if not all(is_fresh_weight(value) if value.ndim >= 2 else is_fresh_bias(value) for value in values):
            found.append(name or type(module).__name__)
    return found


def looks_trained(model: nn.Module, earlier: Mapping[int, Tensor] | None = None) -> bool:
    """True if more layers look trained than chance explains."""
    layers = sum(isinstance(module, _LAYERS) for module in model.modules())
    return len(trained_layers(model, earlier)) > layers // CHANCE


def is_fresh_weight(weight: Tensor) -> bool:
    """True for a weight whose entries look drawn independently of each other, or orthogonal."""
    matrix = weight.detach().flatten(1).float()
    if matrix.numel() > LARGEST:
        matrix = matrix[: max(1, LARGEST // matrix.shape[1])]
    if matrix.numel() < FEW or not bool(torch.isfinite(matrix).all()):
        return matrix.numel() < FEW
    deviation, mean = (float(value) for value in torch.std_mean(matrix))
    if deviation <= 1e-6 * abs(mean) or deviation == 0:
        return True
    if abs(mean) > 6 * deviation / math.sqrt(matrix.numel()):
        return False
    noise = 4 * math.sqrt(96 / matrix.numel())  # of the kurtosis of normal entries: four standard deviations
    if float(((matrix - mean) / deviation).pow(4).mean()) > TAILS + noise:
        return False
    rows, columns = matrix.shape
    edge = deviation * (math.sqrt(rows) + math.sqrt(columns))
    return _largest_singular_value(matrix) < EDGE * edge


def is_fresh_bias(bias: Tensor) -> bool:
    """True for a bias that is constant over each quarter (the gates of an LSTM), or looks uniform."""
    values = bias.detach().flatten().float()
    if values.numel() < 2:
        return True
    if not bool(torch.isfinite(values).all()):
        return False
    if values.numel() < 12 or float(values.std()) <= 1e-6:
        return True
    if values.numel() % 4 == 0 and bool((values.view(4, -1).std(dim=1) <= 1e-6).all()):
        return True
    deviation, mean = (float(value) for value in torch.std_mean(values))
    # Uniform around zero, as torch's defaults are: nothing beyond sqrt(3) deviations.
    is_centred = abs(mean) < 4 * deviation / math.sqrt(values.numel())
    return is_centred and float(values.abs().max()) < 2.4 * deviation


def _largest_singular_value(matrix: Tensor) -> float:
    """A lower bound that is near after some rounds of the power method, from a start that is always the same."""
    vector = torch.linspace(1.0, 2.0, matrix.shape[1], device=matrix.device)
    vector = vector * (1 - 2 * (torch.arange(matrix.shape[1], device=matrix.device) % 2))
    for _ in range(ITERATIONS):
        image = matrix @ vector
        vector = matrix.t() @ (image / image.norm().clamp_min(1e-30))
        size = vector.norm()
        vector = vector / size.clamp_min(1e-30)
    return float(size)
