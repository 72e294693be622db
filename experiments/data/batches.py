"""Batches that are cut from tensors at once: putting them together row by row would take most of a small run's time."""

from __future__ import annotations

from typing import Any

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset


def shuffled(dataset: TensorDataset, batch_size: int, drop_last: bool = True) -> DataLoader[Any]:
    """Load all rows in a random order."""
    return sampled(dataset, BatchSampler(RandomSampler(dataset), batch_size, drop_last))


def sampled(dataset: TensorDataset, sampler: Sampler[list[int]]) -> DataLoader[Any]:
    """Load the batches whose rows a sampler names."""
    return DataLoader(dataset, sampler=sampler, batch_size=None)
