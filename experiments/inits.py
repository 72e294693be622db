"""Initialisations of linear layers. Each takes the layer and changes it in place."""

from __future__ import annotations

from torch import nn


def default(layer: nn.Linear) -> None:
    """Leave torch's default: U(-1, 1) / sqrt(fan_in)."""


def xavier(layer: nn.Linear) -> None:
    """Keep the variance of signal and error between layers (Glorot & Bengio 2010), biases zero."""
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)


def he(layer: nn.Linear) -> None:
    """Keep the variance of the signal through ReLU (He et al. 2015), biases zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


def large(layer: nn.Linear, std: float = 0.6) -> None:
    """Weights far too large for any fan-in above a few, biases zero."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
