"""Dropout in the place of a normalisation."""

from __future__ import annotations

from torch import nn


class Dropout(nn.Dropout):
    """Dropout that is made as a normalisation is, with the width of the layer.

    Args:
        width: Not used.
        p: Share of the units that are dropped.
    """

    def __init__(self, width: int, p: float = 0.5) -> None:
        super().__init__(p)
