"""Generated graphs with communities."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data.arrays import Arrays

INSIDE, ACROSS = 0.5, 0.06  # chance of an edge inside of a community, and between two


class Graphs(Arrays):
    """Graphs of three communities; the class of a node is its community, which its own features hardly show.

    An input holds the nodes' features, then their adjacency: ``(nodes, in_features + nodes)``.

    Args:
        nodes: Nodes of a graph.
        count: Graphs to train on; a quarter as many validate.
        noise: Spread of the features around those of the community, which have a spread of 1.
        isolated: So many nodes of each graph have no neighbours.
        batch_size: Graphs per batch.
        split_seed: Draws the graphs.
    """

    in_features = 8
    out_features = 3

    def __init__(
        self,
        nodes: int = 30,
        count: int = 400,
        noise: float = 3.0,
        isolated: int = 0,
        batch_size: int = 16,
        split_seed: int = 0,
    ) -> None:
        draw = torch.Generator().manual_seed(split_seed)
        centres = torch.randn(self.out_features, self.in_features, generator=draw)

        def graphs(number: int) -> tuple[Tensor, Tensor]:
            labels = torch.randint(self.out_features, (number, nodes), generator=draw)
            features = centres[labels] + noise * torch.randn(number, nodes, self.in_features, generator=draw)
            chance = torch.where(labels[:, :, None] == labels[:, None, :], INSIDE, ACROSS)
            edges = (torch.rand(number, nodes, nodes, generator=draw) < chance).float().triu(1)
            edges[:, :isolated] = 0.0
            edges[:, :, :isolated] = 0.0
            return torch.cat([features, edges + edges.transpose(1, 2)], dim=2), labels

        super().__init__(graphs(count), graphs(count // 4), batch_size)
