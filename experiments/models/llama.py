"""A language model in the style of Llama."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.models.checks import whole_numbers
from experiments.models.language import CausalAttention, draw_as_gpt2

EPSILON = 1e-5  # of the norms, as in Llama


class SwiGLU(nn.Module):
    """A feed-forward net whose hidden features are gated by others through SiLU (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        down: Tensor = self.down(nn.functional.silu(gate) * up)
        return down


class LlamaLayer(nn.Module):
    """Attention with rotary positions and a gated feed-forward net, each behind an RMS norm and with a skip."""

    def __init__(self, width: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=EPSILON)
        self.attention = CausalAttention(width, heads, bias=False, rotary=True, scaled=scaled)
        self.feed_norm = nn.RMSNorm(width, eps=EPSILON)
        self.feed = SwiGLU(width, 8 * width // 3)  # as many weights as 4 * width without a gate

    @property
    def ends(self) -> tuple[nn.Linear, nn.Linear]:
        """The layers that end the two branches."""
        return self.attention.project, self.feed.down

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, time, width)`` to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        added: Tensor = x + self.feed(self.feed_norm(x))
        return added


class Llama(nn.Module):
    """A causal transformer without biases: RMS norm, SwiGLU, rotary positions, a head of its own.

    Args:
        in_features: Number of different tokens.
        out_features: Number of outputs for each position.
        context: The longest sequence that is meant; the model itself takes any.
        depth: Number of layers.
        width: Features of a position.
        heads: Heads of an attention; ``width`` is an even multiple of it.
        scaled: As for :class:`~experiments.models.language.CausalAttention`.

    References:
        Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", arXiv 2302.13971.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        context: int,
        depth: int,
        width: int,
        heads: int,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        whole_numbers(context=context, depth=depth, width=width, heads=heads)
        self.tokens = nn.Embedding(in_features, width)
        layers = [LlamaLayer(width, heads, scaled) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.RMSNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, out_features, bias=False)
        draw_as_gpt2(self, [end for layer in layers for end in layer.ends])

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(batch, time)`` to logits ``(batch, time, out_features)``."""
        logits: Tensor = self.head(self.norm(self.layers(self.tokens(tokens))))
        return logits
