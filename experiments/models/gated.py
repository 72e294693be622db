"""Gated blocks as in today's language models, for words and for vectors."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, initialise
from experiments.models.residual import Residual


class SwiGLU(nn.Module):
    """A feed-forward net whose hidden units are switched by a gate (Shazeer 2020).

    Args:
        width: Features of a position.
        norm: Whether the input is normalised by its root mean square first (Zhang & Sennrich 2019).
    """

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width) if norm else nn.Identity()
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to the same shape."""
        x = self.norm(x)
        y: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return y


class Gated(nn.Module):
    """SwiGLU blocks at each position, the mean over the positions, and a linear head.

    Args:
        in_features: Number of words, or features of a position.
        out_features: Number of outputs.
        blocks: Number of blocks.
        width: Features of a position inside the net.
        words: Whether an input is a row of word numbers. If not, it is a vector, or a sequence of vectors.
        norm: Whether each block and the head normalise their inputs.
        skip: Whether there is a skip around each block.
        init: Initialises a linear layer in place.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        width: int,
        init: Init,
        words: bool = True,
        norm: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(blocks=blocks, width=width)
        self.stem = nn.Embedding(in_features, width) if words else nn.Linear(in_features, width)
        branches = [SwiGLU(width, norm) for _ in range(blocks)]
        self.blocks = nn.Sequential(*(Residual(branch) if skip else branch for branch in branches))
        self.norm = nn.RMSNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, out_features, bias=False)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map words ``(batch, time)``, vectors or sequences of them to outputs ``(batch, out_features)``."""
        states = self.norm(self.blocks(self.stem(x)))
        outputs: Tensor = self.head(states.mean(dim=1) if states.ndim == 3 else states)
        return outputs
