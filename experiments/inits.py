"""Initialisations of linear layers and convolutions. Each takes the layer and changes it in place."""

from __future__ import annotations

from torch import nn

Layer = nn.Linear | nn.Conv2d


def default(layer: Layer) -> None:
    """Leave torch's default: U(-1, 1) / sqrt(fan_in)."""


def xavier(layer: Layer, gain: float = 1.0) -> None:
    """Keep the variance of signal and error between layers (Glorot & Bengio 2010), biases zero."""
    nn.init.xavier_normal_(layer.weight, gain=gain)
    _constant_bias(layer, 0.0)


def he(layer: Layer, gain: float = 1.0, bias: float = 0.0) -> None:
    """Keep the variance of the signal through ReLU (He et al. 2015), then multiply the weights by ``gain``."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    layer.weight.data.mul_(gain)
    _constant_bias(layer, bias)


def orthogonal(layer: Layer, gain: float = 1.0) -> None:
    """Keep the length of the signal in a linear net of any depth (Saxe et al. 2013), biases zero."""
    nn.init.orthogonal_(layer.weight, gain=gain)
    _constant_bias(layer, 0.0)


def large(layer: Layer, std: float = 0.6) -> None:
    """Weights far too large for any fan-in above a few, biases zero."""
    nn.init.normal_(layer.weight, std=std)
    _constant_bias(layer, 0.0)


def small(layer: Layer, std: float = 0.01) -> None:
    """Weights too small for a net of some layers, biases zero."""
    nn.init.normal_(layer.weight, std=std)
    _constant_bias(layer, 0.0)


def uniform(layer: Layer, low: float = 0.0, high: float = 1.0) -> None:
    """Weights drawn from U(0, 1), as ``torch.rand`` gives them: all of one sign, and far too large; biases zero."""
    nn.init.uniform_(layer.weight, low, high)
    _constant_bias(layer, 0.0)


def gaussian(layer: Layer, weights: float = 1.0, biases: float = 0.0) -> None:
    """Weights from N(0, ``weights`` / fan_in), biases from N(0, ``biases``): mean-field theory's two."""
    nn.init.normal_(layer.weight, std=(weights / layer.weight[0].numel()) ** 0.5)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=biases**0.5)


def _constant_bias(layer: Layer, value: float) -> None:
    if layer.bias is not None:
        nn.init.constant_(layer.bias, value)
