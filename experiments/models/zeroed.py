"""Models whose last layers start as zero, so that gradients of what is before them do too."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.models.mlp import MLP
from experiments.models.residual import Residual, ResidualConvolutional, ResidualMLP


class ZeroHeadMLP(MLP):
    """A multilayer perceptron whose head starts as zero: at first no other layer has a gradient.

    Args:
        arguments: As for :class:`MLP`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        _zero(self.head)


class ZeroResidualMLP(ResidualMLP):
    """A residual net in which the last layer of every branch starts as zero (Zhang et al. 2019).

    Args:
        arguments: As for :class:`ResidualMLP`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        _zero_branches(self.blocks)


class ZeroResidualConvolutional(ResidualConvolutional):
    """As :class:`ZeroResidualMLP`, of convolutions.

    Args:
        arguments: As for :class:`ResidualConvolutional`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        _zero_branches(self.blocks)


def _zero_branches(blocks: nn.Sequential) -> None:
    for block in blocks:
        assert isinstance(block, Residual)
        assert isinstance(block.branch, nn.Sequential)
        _zero(block.branch[-1])


@torch.no_grad()
def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
