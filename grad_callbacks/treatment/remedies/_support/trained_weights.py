"""Tell trained weights from freshly initialised ones by their statistics.

Initialisations draw entries independently of each other, from a uniform or a normal distribution, mostly around zero,
or make orthogonal matrices, and fill biases with one constant or uniformly. Training leaves heavy tails in the entries
and singular values far beyond the edge of a random matrix (Martin & Mahoney 2021, "Implicit Self-Regularization in Deep
Neural Networks", sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold

_SHAPE = "Martin & Mahoney 2021, sec. 3, for what training changes; the value is not measured"


@dataclass(frozen=True)
class TrainedWeightsThresholds(Thresholds):
    """The numbers of :func:`looks_trained`."""

    moment: int = threshold(4, "moment of the entries that is looked at", unit="1", source="the definition of kurtosis")
    kurtosis: float = threshold(
        3.6,
        "fourth moment over the squared second above which a weight counts as trained; 3 for a normal, 1.8 for a "
        "uniform distribution",
        unit="1",
        source=_SHAPE,
    )
    kurtosis_deviations: float = threshold(
        4.0, "standard deviations of the kurtosis by which a weight may exceed that", unit="1", source="not measured"
    )
    kurtosis_variance: float = threshold(
        96.0,
        "variance of the fourth moment of normal entries, times their number",
        unit="1",
        source="formula: E[x^8] - E[x^4]^2 = 105 - 9",
    )
    singular_value: float = threshold(
        1.25,
        "largest singular value, over that of a random matrix of the same shape, from which on a weight counts as "
        "trained",
        unit="1",
        source=_SHAPE,
    )
    power_iterations: int = threshold(
        12, "rounds of the power method that finds the largest singular value", unit="rounds", source="not measured"
    )
    mean_deviations: float = threshold(
        6.0,
        "standard deviations of a row's or column's mean up to which entries around another value than zero are "
        "independent of each other",
        unit="1",
        source="not measured",
    )
    layers_per_chance: int = threshold(
        20, "layers of which one may look trained by chance", unit="layers", source="not measured"
    )
    fewest_entries: int = threshold(
        64, "entries of a weight below which it counts as fresh", unit="entries", source="not measured"
    )
    most_entries: int = threshold(
        4096 * 4096,
        "entries above which a slice of the rows is looked at instead of the matrix",
        unit="entries",
        source="not measured",
    )
    least_spread: float = threshold(
        1e-6,
        "deviation, of a weight's entries relative to their mean, and of a bias's entries, up to which they are "
        "constant",
        unit="1",
        source="not measured",
    )
    fewest_bias_entries: int = threshold(
        12, "entries of a bias below which it counts as fresh", unit="entries", source="not measured"
    )
    bias_parts: int = threshold(
        4, "parts of a bias that may each be constant: the gates of an LSTM", unit="parts", source="LSTM has 4 gates"
    )
    bias_mean_deviations: float = threshold(
        4.0,
        "standard deviations of the mean up to which the entries of a bias lie around zero",
        unit="1",
        source="not measured",
    )
    bias_extreme: float = threshold(
        2.4,
        "standard deviations that no entry of a fresh bias reaches; uniform around zero, as torch draws them, they end "
        "at sqrt(3)",
        unit="1",
        source="not measured",
    )
    off_centre_extreme: float = threshold(
        2.0,
        "the same for a bias around another value than zero",
        unit="1",
        source="a uniform one ends at sqrt(3); of 32 normal entries one of two draws has a larger one",
    )
    least_norm: float = threshold(1e-30, "norm that a vector is at least divided by", unit="1", source="not measured")


LIMITS = TrainedWeightsThresholds()

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
    return len(trained_layers(model, earlier)) > layers // LIMITS.layers_per_chance


def is_fresh_weight(weight: Tensor) -> bool:
    """True for a weight whose entries look drawn independently of each other, or orthogonal."""
    matrix = weight.detach().flatten(1).float()
    if matrix.numel() > LIMITS.most_entries:
        matrix = matrix[: max(1, LIMITS.most_entries // matrix.shape[1])]
    if matrix.numel() < LIMITS.fewest_entries or not bool(torch.isfinite(matrix).all()):
        return matrix.numel() < LIMITS.fewest_entries
    deviation, mean = (float(value) for value in torch.std_mean(matrix))
    if deviation <= LIMITS.least_spread * abs(mean) or deviation == 0:
        return True
    is_centred = abs(mean) <= LIMITS.mean_deviations * deviation / math.sqrt(matrix.numel())
    if not is_centred and not _has_independent_means(matrix, mean, deviation):
        return False
    matrix = matrix - mean
    noise = LIMITS.kurtosis_deviations * math.sqrt(LIMITS.kurtosis_variance / matrix.numel())
    if float((matrix / deviation).pow(LIMITS.moment).mean()) > LIMITS.kurtosis + noise:
        return False
    rows, columns = matrix.shape
    edge = deviation * (math.sqrt(rows) + math.sqrt(columns))
    return _largest_singular_value(matrix) < LIMITS.singular_value * edge


def _has_independent_means(matrix: Tensor, mean: float, deviation: float) -> bool:
    """True if no row and no column lies apart from the others; training moves whole units."""
    return all(
        float((matrix.mean(dim) - mean).abs().max()) < LIMITS.mean_deviations * deviation / math.sqrt(matrix.shape[dim])
        for dim in (0, 1)
    )


def is_fresh_bias(bias: Tensor) -> bool:
    """True for a bias that is constant over each quarter (the gates of an LSTM), or looks uniform."""
    values = bias.detach().flatten().float()
    if values.numel() < 2:
        return True
    if not bool(torch.isfinite(values).all()):
        return False
    if values.numel() < LIMITS.fewest_bias_entries or float(values.std()) <= LIMITS.least_spread:
        return True
    is_divisible = values.numel() % LIMITS.bias_parts == 0
    if is_divisible and bool((values.view(LIMITS.bias_parts, -1).std(dim=1) <= LIMITS.least_spread).all()):
        return True
    deviation, mean = (float(value) for value in torch.std_mean(values))
    if abs(mean) < LIMITS.bias_mean_deviations * deviation / math.sqrt(values.numel()):
        return float(values.abs().max()) < LIMITS.bias_extreme * deviation
    return float((values - mean).abs().max()) < LIMITS.off_centre_extreme * deviation


def _largest_singular_value(matrix: Tensor) -> float:
    """A close lower bound, by the power method from a start that is always the same."""
    vector = torch.linspace(1.0, 2.0, matrix.shape[1], device=matrix.device)
    vector = vector * (1 - 2 * (torch.arange(matrix.shape[1], device=matrix.device) % 2))
    for _ in range(LIMITS.power_iterations):
        image = matrix @ vector
        vector = matrix.t() @ (image / image.norm().clamp_min(LIMITS.least_norm))
        size = vector.norm()
        vector = vector / size.clamp_min(LIMITS.least_norm)
    return float(size)
