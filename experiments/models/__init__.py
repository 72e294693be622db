"""Models. Each is made with ``in_features`` and ``out_features`` and maps a batch of inputs to outputs."""

from experiments.models.adapters import AdaptedMLP
from experiments.models.autoencoder import Autoencoder, VariationalAutoencoder
from experiments.models.convnext import ConvNext
from experiments.models.convolutional import Convolutional
from experiments.models.dropout import Dropout
from experiments.models.embeddings import BagOfWords, Factors
from experiments.models.experts import Branches, Experts
from experiments.models.flow import Flow
from experiments.models.gan import Adversaries
from experiments.models.gated import Gated
from experiments.models.gpt import GPT
from experiments.models.graph import GraphConvolutional
from experiments.models.heads import TwoHeads
from experiments.models.llama import Llama
from experiments.models.mixture import MixtureDensity
from experiments.models.mlp import MLP, Block
from experiments.models.neural_ode import NeuralODE
from experiments.models.recurrent import Recurrent
from experiments.models.residual import ResidualConvolutional, ResidualMLP
from experiments.models.resnet import ResNet
from experiments.models.squashed import SquashedMLP
from experiments.models.tied import TiedTransformer
from experiments.models.transcriber import Transcriber
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
    "ConvNext",
    "Convolutional",
    "Dropout",
    "Experts",
    "Factors",
    "Flow",
    "Gated",
    "GraphConvolutional",
    "Llama",
    "MixtureDensity",
    "NeuralODE",
    "Recurrent",
    "ResNet",
    "ResidualConvolutional",
    "ResidualMLP",
    "SquashedMLP",
    "TiedTransformer",
    "Transcriber",
    "Transformer",
    "TwoHeads",
    "VariationalAutoencoder",
    "ZeroHeadMLP",
    "ZeroResidualConvolutional",
    "ZeroResidualMLP",
]
