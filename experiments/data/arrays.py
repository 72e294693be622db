"""Data that fits into two pairs of tensors."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.batches import shuffled


class Arrays(LightningDataModule):
    """Inputs with their targets, in memory.

    Args:
        train: Inputs and targets to train on.
        val: Inputs and targets to validate with.
        batch_size: Examples per batch. The last, shorter batch of an epoch is dropped.
    """

    def __init__(self, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], batch_size: int) -> None:
        super().__init__()
        if not isinstance(batch_size, int) or not 1 <= batch_size <= len(train[0]):
            raise ValueError(f"batch_size must be a whole number from 1 to {len(train[0])}, got {batch_size!r}")
        self.batch_size = batch_size
        self._train = TensorDataset(*train)
        self._val = TensorDataset(*val)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return shuffled(self._train, self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation examples in one batch."""
        return DataLoader(self._val, len(self._val))
