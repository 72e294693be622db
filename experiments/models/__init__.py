"""Models. Each is made with ``in_features`` and ``out_features`` and maps a batch of inputs to outputs."""

from experiments.models.convolutional import Convolutional
from experiments.models.mlp import MLP, Block
from experiments.models.recurrent import Recurrent
from experiments.models.residual import ResidualConvolutional, ResidualMLP
from experiments.models.transformer import Transformer

__all__ = ["MLP", "Block", "Convolutional", "Recurrent", "ResidualConvolutional", "ResidualMLP", "Transformer"]
