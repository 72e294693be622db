"""Normalisations that torch's constructors alone do not give a net."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def group_norm(width: int, groups: int = 8) -> nn.GroupNorm:
    """Make a group normalisation of ``width`` features (Wu & He 2018).

    Args:
        width: Number of features or channels.
        groups: Number of groups that are normalised on their own, a divisor of ``width``.

    Raises:
        ValueError: If ``groups`` does not divide ``width``.
    """
    if not isinstance(groups, int) or groups < 1 or width % groups:
        raise ValueError(f"groups must be a divisor of the width {width}, got {groups!r}")
    return nn.GroupNorm(groups, width)


class ChannelsLast(nn.Module):
    """A normalisation over the channels of each position of an image, as ConvNeXt's.

    Args:
        norm: Normalises over the last dimension.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to the same shape."""
        normed: Tensor = self.norm(x.movedim(1, -1))
        return normed.movedim(-1, 1)


def image_norm(norm: Callable[[int], nn.Module], channels: int) -> nn.Module:
    """Make the normalisation of images that ``norm`` is of vectors.

    Args:
        norm: Makes a normalisation of vectors of a given width.
        channels: Channels of the images.
    """
    made = norm(channels)
    if isinstance(made, nn.BatchNorm1d):
        return nn.BatchNorm2d(channels, eps=made.eps, momentum=made.momentum, affine=made.affine)
    return ChannelsLast(made) if isinstance(made, nn.LayerNorm | nn.RMSNorm) else made
