"""Weight gains: how large weights are for their fan-in, and how large their activation needs them to be.

The gain of a weight is ``std * sqrt(fan_in)``. Through a layer with gain g and activation f the error is multiplied by
``g * sqrt(E[f'(z)^2])`` on its way back (mean field: Poole et al. 2016; Schoenholz et al. 2017, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import steepest_slope
from grad_callbacks.measurement.layer_order import clean_name
from grad_callbacks.measurement.recurrence import RECURRENCE, log_radius


@dataclass(frozen=True)
class GainThresholds(Thresholds):
    """Numbers of the mean-field theory of weight gains."""

    rectifier_gain: float = threshold(
        math.sqrt(2), "gain that keeps the signal through a rectifier", unit="1", source="He et al. 2015"
    )
    prelu_slope: float = threshold(0.25, "negative slope of a PReLU", unit="1", source="torch's default")
    layers: int = threshold(10, "layers after which the factor is taken", unit="layers", source="not measured")
    largest_gain: float = threshold(1e6, "gains beyond are returned as the factor", unit="1", source="not measured")
    smallest_variance: float = threshold(
        1e-30,
        "floor of the signal's variance, and one over its ceiling",
        unit="1",
        source="keeps it within the range of floats",
    )
    cached_factors: int = threshold(256, "factors that are kept", unit="factors", source="not measured")
    grid_points: int = threshold(801, "points for means over a normal variable", unit="points", source="not measured")
    grid_spread: float = threshold(
        1e-3, "distance from 0 below which the points are dense", unit="standard deviations", source="not measured"
    )
    grid_end: float = threshold(8.0, "largest point", unit="standard deviations", source="not measured")


LIMITS = GainThresholds()

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "LeakyReLU": nn.functional.leaky_relu,
    "PReLU": partial(nn.functional.leaky_relu, negative_slope=LIMITS.prelu_slope),
    "ELU": nn.functional.elu,
    "SELU": nn.functional.selu,
    "GELU": nn.functional.gelu,
    "SiLU": nn.functional.silu,
    "Mish": nn.functional.mish,
    "Softplus": nn.functional.softplus,
    "Softsign": nn.functional.softsign,
    "Hardtanh": nn.functional.hardtanh,
    "Hardsigmoid": nn.functional.hardsigmoid,
}

_RECTIFIERS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "GELU", "SiLU", "Mish")


def needed_gain(activation: str) -> float:
    """Return the gain with which a plain stack of layers neither shrinks nor amplifies the error.

    He et al. (2015) for rectifiers, the inverse of the steepest slope for all others (Glorot & Bengio 2010).
    """
    return LIMITS.rectifier_gain if activation in _RECTIFIERS else 1 / steepest_slope(activation)


@torch.no_grad()
def weight_gains(model: nn.Module) -> dict[str, float]:
    """Return the gain of each layer's weight by layer name, in the order of registration.

    Linear and convolution layers count, and what a recurrent layer has from its own past (``name.weight_hh_l0``).
    He's initialisation has 1.414, Xavier's about 1, torch's default 0.577. One pass over the weights, one read.
    """
    weights: dict[str, tuple[Tensor, int]] = {}
    for name, module in model.named_modules():
        name = clean_name(name) or type(module).__name__
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            # Only a weight that is a parameter itself: to read one that is computed (spectral norm) changes the model.
            weight = module._parameters.get("weight")
            if weight is not None and _is_plain(weight):
                weights[name] = weight, _fan_in(module)
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            for key, weight in module.named_parameters(recurse=False):
                if key.startswith("weight_hh") and _is_plain(weight):
                    weights[f"{name}.{key}"] = weight, weight.shape[1]
    if not weights:
        return {}
    # The root mean square instead of the standard deviation: a common offset changes the signal too.
    squares = torch.stack([weight.detach().double().square().mean().cpu() for weight, _ in weights.values()])
    gains = (squares * torch.tensor([float(fan_in) for _, fan_in in weights.values()])).sqrt().tolist()
    return dict(zip(weights, gains, strict=True))


@torch.no_grad()
def spectral_radii(model: nn.Module) -> dict[str, float]:
    """Return the spectral radius of each recurrent weight of a plain RNN by name.

    Above 1 the error may grow exponentially with the steps back in time, below 1 it must shrink (Pascanu et al. 2013,
    sec. 2.1). Gated cells keep their memory by gates, so their radius says little: they are left out.
    """
    radii: dict[str, float] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.RNN, nn.RNNCell)):
            continue
        for key, weight in module.named_parameters(recurse=False):
            small = weight.ndim == 2 and weight.shape[0] == weight.shape[1] <= RECURRENCE.side
            if key.startswith("weight_hh") and small and bool(torch.isfinite(weight).all()):
                radii[f"{clean_name(name) or type(module).__name__}.{key}"] = math.exp(float(log_radius(weight)))
    return radii


@lru_cache(maxsize=LIMITS.cached_factors)
def error_factor(activation: str, gain: float, depth: int = LIMITS.layers) -> float:
    """Return the factor by which the error is multiplied per layer going back, by mean-field theory.

    Args:
        activation: Class name; unknown ones count as linear.
        gain: Of the weights. Biases are taken as zero.
        depth: Layers after which it is taken. The inputs of the first are standardised.
    """
    if not 0 < gain < LIMITS.largest_gain:
        return gain
    function = _FUNCTIONS.get(activation, torch.clone)
    points, measure = _gaussian()
    variance, slope = gain**2, 1.0
    for _ in range(max(1, depth)):
        with torch.enable_grad():
            z = (math.sqrt(variance) * points).requires_grad_()
            y: Tensor = function(z)
            (derivative,) = torch.autograd.grad(y.sum(), z)
        slope = float((measure * derivative**2).sum())
        variance = gain**2 * float((measure * y.detach() ** 2).sum())
        variance = min(max(variance, LIMITS.smallest_variance), 1 / LIMITS.smallest_variance)
    return gain * math.sqrt(slope)


@lru_cache(maxsize=1)
def _gaussian() -> tuple[Tensor, Tensor]:
    """Points and weights for means over a standard normal variable, dense at 0, where wide ones meet steep slopes."""
    end = math.asinh(LIMITS.grid_end / LIMITS.grid_spread)
    u = torch.linspace(-1, 1, LIMITS.grid_points, dtype=torch.float64) * end
    points = LIMITS.grid_spread * torch.sinh(u)
    density = torch.exp(-(points**2) / 2) * torch.cosh(u)
    return points, density / density.sum()


def _is_plain(weight: object) -> bool:
    return isinstance(weight, Tensor) and weight.is_floating_point() and weight.numel() > 0


def _fan_in(module: nn.Module) -> int:
    weight: Tensor = module.weight  # type: ignore[assignment]
    if getattr(module, "transposed", False):
        return int(weight.shape[0] * weight[0, 0].numel()) // int(getattr(module, "groups", 1))
    return int(weight[0].numel())
