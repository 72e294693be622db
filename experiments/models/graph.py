"""Graph convolutional nets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, initialise


class GraphConvolutional(nn.Module):
    """Layers that mix each node's features with its neighbours' (Kipf & Welling 2017); answers for each node.

    The adjacency is dense, and is normalised by the roots of the nodes' degrees. With many layers and no skips the
    features of all nodes become the same (Li et al. 2018).

    Args:
        in_features: Features of a node.
        out_features: Number of outputs of a node.
        depth: Number of layers.
        width: Features of a node between the layers.
        activation: Makes an activation.
        init: Initialises a linear layer in place.
        skip: Whether there is a skip around each layer.
        self_loops: Whether a node is a neighbour of itself. If not, one without neighbours has degree 0, and what it
            is divided by is 0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        width: int,
        activation: Callable[[], nn.Module],
        init: Init,
        skip: bool = False,
        self_loops: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(depth=depth, width=width)
        self.features = in_features
        self.stem = nn.Linear(in_features, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activations = nn.ModuleList(activation() for _ in range(depth))
        self.head = nn.Linear(width, out_features)
        self.skip = skip
        self.self_loops = self_loops
        initialise(self, init)

    def forward(self, graphs: Tensor) -> Tensor:
        """Map graphs ``(batch, nodes, in_features + nodes)`` to outputs ``(batch, out_features, nodes)``.

        The first columns are the nodes' features, the others their adjacency.
        """
        x, adjacency = graphs[..., : self.features], graphs[..., self.features :]
        if self.self_loops:
            adjacency = adjacency + torch.eye(adjacency.shape[1])
        roots = adjacency.sum(dim=2).sqrt()
        mixing = adjacency / (roots[:, :, None] * roots[:, None, :])
        x = self.stem(x)
        for layer, activation in zip(self.layers, self.activations, strict=True):
            y = activation(mixing @ layer(x))
            x = x + y if self.skip else y
        outputs: Tensor = self.head(x)
        return outputs.transpose(1, 2)
