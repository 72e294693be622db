"""A small transformer that predicts the next character."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.convolutional import Init, initialise


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        batch, time, width = x.shape
        query, key, value = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.query_key_value(x).split(width, dim=2)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, time, width))
        return projected


class Layer(nn.Module):
    """Attention and a feed-forward net, each with a skip and a layer norm before it or after the sum (Xiong 2020)."""

    def __init__(self, width: int, heads: int, pre_norm: bool, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        if self.pre_norm:
            x = x + self.attention(self.attention_norm(x))
            return x + self.feed(self.feed_norm(x))
        x = self.attention_norm(x + self.attention(x))
        normed: Tensor = self.feed_norm(x + self.feed(x))
        return normed


class Transformer(nn.Module):
    """A causal transformer over tokens.

    Args:
        in_features: Number of different tokens.
        out_features: Number of outputs for each position.
        context: The longest sequence.
        depth: Number of layers.
        width: Features of a position.
        heads: Heads of an attention; a divisor of ``width``.
        activation: Makes an activation of the feed-forward nets.
        init: Initialises a linear layer in place.
        pre_norm: Layer norm in front of attention and feed-forward net, and one before the head. If false, after the
            sums with their skips, as in the original transformer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context: int,
        depth: int,
        width: int,
        heads: int,
        activation: Callable[[], nn.Module],
        init: Init,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(context=context, depth=depth, width=width, heads=heads)
        if width % heads:
            raise ValueError(f"heads must divide width {width}, got {heads!r}")
        self.tokens = nn.Embedding(in_features, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, heads, pre_norm, activation) for _ in range(depth)))
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.head = nn.Linear(width, out_features)
        initialise(self, init)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(batch, time)`` to logits ``(batch, time, out_features)``."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        logits: Tensor = self.head(self.norm(self.layers(x)))
        return logits
