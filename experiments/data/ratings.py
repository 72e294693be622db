"""Generated ratings of items by users."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data.arrays import Arrays


class Ratings(Arrays):
    """Products of four factors, with noise. A few users and items have most of the ratings, many have one or none.

    Args:
        size: Number of users, and of items.
        count: Ratings to train on; a fifth as many validate.
        noise: Spread of the noise; the ratings have a spread of 1.
        batch_size: Ratings per batch.
        split_seed: Draws factors and ratings.
    """

    out_features = 1

    def __init__(
        self, size: int = 300, count: int = 12_000, noise: float = 0.1, batch_size: int = 64, split_seed: int = 0
    ) -> None:
        self.in_features = size
        draw = torch.Generator().manual_seed(split_seed)
        users, items = (torch.randn(size, 4, generator=draw) / 2**0.5 for _ in range(2))
        popularity = torch.arange(1, size + 1) ** -1.5

        def rate(number: int) -> tuple[Tensor, Tensor]:
            pairs = torch.multinomial(popularity, 2 * number, replacement=True, generator=draw).view(number, 2)
            ratings = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(dim=1, keepdim=True)
            return pairs, ratings + noise * torch.randn(number, 1, generator=draw)

        super().__init__(rate(count), rate(count // 5), batch_size)
