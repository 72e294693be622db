"""Residual nets: blocks of two layers with a skip around them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, image_side, initialise


class Residual(nn.Module):
    """A branch with a skip around it.

    Args:
        branch: Maps an input to an output of the same shape.
        scale: Multiplies what the branch adds.
    """

    def __init__(self, branch: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled branch to ``x``."""
        return x + self.scale * self.branch(x)


class ResidualMLP(nn.Module):
    """Residual blocks of two linear layers, each layer after its activation (He et al. 2016).

    Args:
        in_features: Size of an input.
        out_features: Number of outputs.
        blocks: Number of blocks.
        width: Units of every layer.
        activation: Makes an activation.
        norm: Makes a normalisation of a given width, in front of each activation.
        init: Initialises a linear layer in place.
        branch_scale: Multiplies each branch. ``blocks ** -0.5`` keeps the variance bounded (Zhang et al. 2019);
            None: that. 1 leaves it out.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        width: int,
        activation: Callable[[], nn.Module],
        norm: Callable[[int], nn.Module],
        init: Init,
        branch_scale: float | None = None,
    ) -> None:
        super().__init__()
        whole_numbers(blocks=blocks, width=width)
        scale = blocks**-0.5 if branch_scale is None else branch_scale
        self.stem = nn.Linear(in_features, width)
        self.blocks = nn.Sequential(
            *(
                Residual(
                    nn.Sequential(
                        norm(width),
                        activation(),
                        nn.Linear(width, width),
                        norm(width),
                        activation(),
                        nn.Linear(width, width),
                    ),
                    scale,
                )
                for _ in range(blocks)
            )
        )
        self.head = nn.Linear(width, out_features)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to outputs ``(batch, out_features)``."""
        outputs: Tensor = self.head(self.blocks(self.stem(x)))
        return outputs


class ResidualConvolutional(nn.Module):
    """Residual blocks of two 3x3 convolutions on images of half size, their mean over positions, a linear head.

    Args:
        in_features: Pixels of an image; images are square and have one channel.
        out_features: Number of outputs.
        blocks: Number of blocks.
        channels: Channels of every convolution.
        activation: Makes an activation.
        init: Initialises a convolution or linear layer in place.
        batch_norm: Normalise over the batch in front of each activation.
        branch_scale: As for :class:`ResidualMLP`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        channels: int,
        activation: Callable[[], nn.Module],
        init: Init,
        batch_norm: bool = False,
        branch_scale: float | None = None,
    ) -> None:
        super().__init__()
        whole_numbers(blocks=blocks, channels=channels)
        self.side = image_side(in_features)
        scale = blocks**-0.5 if branch_scale is None else branch_scale

        def layer() -> list[nn.Module]:
            norm = [nn.BatchNorm2d(channels)] if batch_norm else []
            return [*norm, activation(), nn.Conv2d(channels, channels, 3, padding=1)]

        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*(Residual(nn.Sequential(*layer(), *layer()), scale) for _ in range(blocks)))
        self.head = nn.Linear(channels, out_features)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_features)`` to logits ``(batch, out_features)``."""
        images = x.view(-1, 1, self.side, self.side)
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))
        return logits
