"""What the language models have in common: causal attention, and how their weights are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

STD = 0.02  # of the weights of GPT-2


class CausalAttention(nn.Module):
    """Causal self-attention with several heads.

    Args:
        width: Features of a position.
        heads: Number of heads; a divisor of ``width``.
        bias: Whether the linear layers have biases.
        rotary: Turn queries and keys by their position (Su et al. 2021), in place of learned positions.
        scaled: Divide the scores by the root of a head's width. Without it the softmax saturates as the weights grow.
        dropout: Share of the attention weights that is dropped in training.
    """

    def __init__(
        self, width: int, heads: int, bias: bool, rotary: bool = False, scaled: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % heads or (rotary and width // heads % 2):
            raise ValueError(f"heads must divide width {width}, into even parts where rotary, got {heads!r}")
        self.heads, self.rotary, self.dropout = heads, rotary, dropout
        self.scale = (width // heads) ** -0.5 if scaled else 1.0
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        batch, time, width = x.shape
        query, key, value = (
            self.query_key_value(x).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        if self.rotary:
            query, key = turned(query), turned(key)
        dropout = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=self.scale
        )
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, time, width))
        return projected


def turned(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn each pair of features by an angle that grows with the position, the first pair fastest.

    Args:
        x: ``(..., time, features)``, an even number of features.
        base: The slowest pair turns about ``base`` times slower than the first.
    """
    half = x.shape[-1] // 2
    speed = base ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def draw_as_gpt2(model: nn.Module, branches: Iterable[nn.Linear]) -> None:
    """Draw all weights as GPT-2 does: normal, of deviation 0.02; biases are zero.

    Args:
        model: Its linear layers and embeddings are drawn anew.
        branches: The layers that end a residual branch: their deviation is divided by the root of their number.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    ends = list(branches)
    for layer in ends:
        nn.init.normal_(layer.weight, std=STD / math.sqrt(len(ends)))
