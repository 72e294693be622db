"""Convolutions without biases, each with batch norm behind it, as in the ResNets of the libraries."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, image_side, initialise


class ResNetBlock(nn.Module):
    """Two convolutions with batch norm, the skip added in front of the last ReLU (He et al. 2016).

    Args:
        channels: Channels of the image.
        batch_norm: Whether there is batch norm.
        skip: Whether there is a skip.
    """

    def __init__(self, channels: int, batch_norm: bool, skip: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = norm()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm()
        self.activation = nn.ReLU()
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to the same shape."""
        y = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        out: Tensor = self.activation(x + y if self.skip else y)
        return out


class ResNet(nn.Module):
    """A convolution, pooling, blocks, the mean over all positions, and a linear head.

    Args:
        in_features: Pixels of an image; images are square and have one channel.
        out_features: Number of outputs.
        blocks: Number of blocks of two convolutions.
        channels: Channels of every convolution.
        init: Initialises a convolution or linear layer in place.
        batch_norm: Whether each convolution has batch norm behind it.
        skip: Whether there is a skip around each block.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        channels: int,
        init: Init,
        batch_norm: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(blocks=blocks, channels=channels)
        self.side = image_side(in_features)
        norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), norm, nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*(ResNetBlock(channels, batch_norm, skip) for _ in range(blocks)))
        self.head = nn.Linear(channels, out_features)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        images = x.view(-1, 1, self.side, self.side)
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return logits
