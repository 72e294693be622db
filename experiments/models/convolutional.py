"""A plain convolutional net for small images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.norms import image_norm

Init = Callable[[nn.Linear | nn.Conv2d], None]


class Convolutional(nn.Module):
    """Convolutions of 3x3 with padding, the mean over all positions, and a linear head.

    Args:
        in_features: Pixels of an image; images are square and have one channel.
        out_features: Number of outputs.
        depth: Number of convolutions.
        channels: Channels of each of them.
        activation: Makes an activation.
        init: Initialises a convolution or linear layer in place.
        batch_norm: Normalise over the batch after each convolution.
        norm: Makes a normalisation of a given width, for after each convolution; None: none but ``batch_norm``.
        pool: After which convolution the image is halved; None: never.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        channels: int,
        activation: Callable[[], nn.Module],
        init: Init,
        batch_norm: bool = False,
        pool: int | None = 1,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        whole_numbers(depth=depth, channels=channels)
        self.side = image_side(in_features)
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise([1] + [channels] * depth), start=1):
            layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(fan_out))
            if norm is not None:
                layers.append(image_norm(norm, fan_out))
            layers.append(activation())
            if number == pool:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, out_features)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        images = x.view(-1, 1, self.side, self.side)
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


def image_side(pixels: int) -> int:
    """Return the side of a square image of so many pixels."""
    side = round(pixels**0.5)
    if side**2 != pixels:
        raise ValueError(f"in_features must be a square number, got {pixels!r}")
    return side


@torch.no_grad()
def initialise(model: nn.Module, init: Init) -> None:
    """Initialise all convolutions and linear layers of a model."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            init(module)
