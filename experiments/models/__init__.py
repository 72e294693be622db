"""Models. Each is made with ``in_features`` and ``out_features`` and maps a batch of inputs to outputs."""

from experiments.models.mlp import MLP, Block

__all__ = ["MLP", "Block"]
