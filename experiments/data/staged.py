"""Batches that are drawn from other examples as training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class Staged(Sampler[list[int]]):
    """Endless random batches; from given steps on they are drawn from another pool of examples.

    Args:
        pools: Pairs of the first step of a stage and the indices of its examples; the first begins at step 0.
        batch_size: Examples per batch; a pool that is smaller is one batch.
        steps: Batches in all, which then are one epoch.
    """

    def __init__(self, pools: Sequence[tuple[int, Sequence[int]]], batch_size: int, steps: int) -> None:
        if not pools or pools[0][0] != 0:
            raise ValueError("the first pool must begin at step 0")
        self.pools = [(begin, torch.as_tensor(indices)) for begin, indices in pools]
        self.batch_size = batch_size
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            pool = [indices for begin, indices in self.pools if begin <= step][-1]
            chosen: list[int] = pool[torch.randperm(len(pool))[: self.batch_size]].tolist()
            yield chosen
