"""Models that look up rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BagOfWords(nn.Module):
    """The mean of the words' embeddings, and a linear head.

    Args:
        in_features: Number of words.
        out_features: Number of outputs.
        width: Size of an embedding.
        sparse: Whether the table's gradient holds the rows that were looked up and no others.
        head: Whether there is a head; without one the embeddings are the outputs, and ``width`` is not used.
    """

    def __init__(
        self, in_features: int, out_features: int, width: int = 32, sparse: bool = False, head: bool = True
    ) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(in_features, width if head else out_features, mode="mean", sparse=sparse)
        self.head = nn.Linear(width, out_features) if head else nn.Identity()

    def forward(self, words: Tensor) -> Tensor:
        """Map word numbers ``(batch, words)`` to logits ``(batch, out_features)``."""
        logits: Tensor = self.head(self.words(words))
        return logits


class Factors(nn.Module):
    """Ratings as products of a user's and an item's factors (Koren et al. 2009).

    Args:
        in_features: Number of users, and of items.
        out_features: Not used: a rating is one number.
        width: Number of factors.
        spread: Of the factors at the start. Near zero, the start is near a saddle.
        sparse: As for :class:`BagOfWords`.
    """

    def __init__(
        self, in_features: int, out_features: int, width: int = 4, spread: float = 0.3, sparse: bool = False
    ) -> None:
        super().__init__()
        self.users = nn.Embedding(in_features, width, sparse=sparse)
        self.items = nn.Embedding(in_features, width, sparse=sparse)
        with torch.no_grad():
            for table in (self.users, self.items):
                nn.init.normal_(table.weight, std=spread)

    def forward(self, pairs: Tensor) -> Tensor:
        """Map pairs of user and item ``(batch, 2)`` to ratings ``(batch, 1)``."""
        user, item = pairs.unbind(dim=1)
        return (self.users(user) * self.items(item)).sum(dim=1, keepdim=True)
