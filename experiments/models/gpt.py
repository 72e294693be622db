"""A language model in the style of GPT-2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.language import CausalAttention, draw_as_gpt2


class GPTLayer(nn.Module):
    """Attention and a feed-forward net with GELU, each behind a layer norm and with a skip."""

    def __init__(self, width: int, heads: int, scaled: bool, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, bias=True, scaled=scaled, dropout=dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    @property
    def ends(self) -> tuple[nn.Linear, nn.Linear]:
        """The layers that end the two branches."""
        last = self.feed[2]
        assert isinstance(last, nn.Linear)
        return self.attention.project, last

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        added: Tensor = x + self.dropout(self.feed(self.feed_norm(x)))
        return added


class GPT(nn.Module):
    """A causal transformer with layer norm, GELU, learned positions and biases, whose head is its table of tokens.

    Args:
        in_features: Number of different tokens.
        out_features: The same.
        context: The longest sequence.
        depth: Number of layers.
        width: Features of a position.
        heads: Heads of an attention; a divisor of ``width``.
        dropout: Share of attention weights, and of features of each branch and of the embedding, dropped in training.
        scaled: As for :class:`~experiments.models.language.CausalAttention`.

    References:
        Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context: int,
        depth: int,
        width: int,
        heads: int,
        dropout: float = 0.0,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(context=context, depth=depth, width=width, heads=heads)
        self.tokens = nn.Embedding(in_features, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        layers = [GPTLayer(width, heads, scaled, dropout) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out_features, bias=False)
        draw_as_gpt2(self, [end for layer in layers for end in layer.ends])
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(batch, time)`` to logits ``(batch, time, out_features)``."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(places))
        logits: Tensor = self.head(self.norm(self.layers(x)))
        return logits
