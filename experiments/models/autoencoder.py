"""Autoencoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from experiments.models.stacks import stack


class Autoencoder(nn.Module):
    """An encoder and a decoder that mirrors it.

    Args:
        in_features: Size of an input.
        out_features: Not used: an output has the size of an input.
        widths: Units of the encoder's hidden layers.
        code: Size of the code between the two.
        activation: Makes an activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        widths: Sequence[int],
        code: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = stack([in_features, *widths, code], activation)
        self.decoder = stack([code, *reversed(widths), in_features], activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to its reconstruction."""
        reconstruction: Tensor = self.decoder(self.encoder(x))
        return reconstruction


class VariationalAutoencoder(nn.Module):
    """An autoencoder whose code is drawn from a normal distribution (Kingma & Welling 2014).

    Args:
        in_features: As for :class:`Autoencoder`.
        out_features: Not used.
        widths: As for :class:`Autoencoder`.
        code: As for :class:`Autoencoder`.
        activation: As for :class:`Autoencoder`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        widths: Sequence[int],
        code: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = stack([in_features, *widths, 2 * code], activation)
        self.decoder = stack([code, *reversed(widths), in_features], activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``(batch, in_features)`` to its reconstruction, and to mean and log variance of its code."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + noise * (log_variance / 2).exp()), mean, log_variance
