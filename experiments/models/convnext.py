"""Convolutional nets with depthwise convolutions and layer scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, image_side, initialise


class ConvNextBlock(nn.Module):
    """A depthwise convolution, layer norm, and two layers on each position with GELU between them (Liu et al. 2022).

    Args:
        channels: Channels of the image.
        layer_scale: What the branch is multiplied by at first, channel by channel; None: it is not.
        norm: Whether there is a layer norm.
        skip: Whether there is a skip around it all.
    """

    def __init__(self, channels: int, layer_scale: float | None, norm: bool, skip: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.up = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.down = nn.Linear(4 * channels, channels)
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to the same shape."""
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(self.activation(self.up(y)))
        if self.layer_scale is not None:
            y = self.layer_scale * y
        y = y.permute(0, 3, 1, 2)
        return x + y if self.skip else y


class ConvNext(nn.Module):
    """A stem that halves the image, blocks, the mean over all positions, and a linear head.

    Args:
        in_features: Pixels of an image; images are square and have one channel.
        out_features: Number of outputs.
        blocks: Number of blocks.
        channels: Channels of every block.
        init: Initialises a convolution or linear layer in place.
        layer_scale: As for :class:`ConvNextBlock`.
        norm: Whether the blocks and the head have a layer norm.
        skip: Whether there is a skip around each block.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        channels: int,
        init: Init,
        layer_scale: float | None = 0.1,
        norm: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(blocks=blocks, channels=channels)
        self.side = image_side(in_features)
        self.stem = nn.Conv2d(1, channels, 2, stride=2)
        self.blocks = nn.Sequential(*(ConvNextBlock(channels, layer_scale, norm, skip) for _ in range(blocks)))
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.head = nn.Linear(channels, out_features)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        images = x.view(-1, 1, self.side, self.side)
        logits: Tensor = self.head(self.norm(self.blocks(self.stem(images)).mean(dim=(2, 3))))
        return logits
