"""Models. Each is made with ``in_features`` and ``out_features`` and maps a batch of inputs to outputs."""

from experiments.models.adapters import AdaptedMLP
from experiments.models.autoencoder import Autoencoder, VariationalAutoencoder
from experiments.models.convolutional import Convolutional
from experiments.models.dropout import Dropout
from experiments.models.embeddings import BagOfWords, Factors
from experiments.models.experts import Branches, Experts
from experiments.models.flow import Flow
from experiments.models.gan import Adversaries
from experiments.models.gpt import GPT
from experiments.models.heads import TwoHeads
from experiments.models.llama import Llama
from experiments.models.mlp import MLP, Block
from experiments.models.recurrent import Recurrent
from experiments.models.residual import ResidualConvolutional, ResidualMLP
from experiments.models.tied import TiedTransformer
from experiments.models.transformer import Transformer
from experiments.models.zeroed import ZeroHeadMLP, ZeroResidualConvolutional, ZeroResidualMLP

__all__ = [
    "GPT",
    "MLP",
    "AdaptedMLP",
    "Adversaries",
    "Autoencoder",
    "BagOfWords",
    "Block",
    "Branches",
    "Convolutional",
    "Dropout",
    "Experts",
    "Factors",
    "Flow",
    "Llama",
    "Recurrent",
    "ResidualConvolutional",
    "ResidualMLP",
    "TiedTransformer",
    "Transformer",
    "TwoHeads",
    "VariationalAutoencoder",
    "ZeroHeadMLP",
    "ZeroResidualConvolutional",
    "ZeroResidualMLP",
]
