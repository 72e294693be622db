"""Scikit-learn's digits."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset


class Digits(LightningDataModule):
    """Scikit-learn's digits: 1797 images of 8x8 pixels, ten classes, standardised, a fifth for validation.

    Args:
        batch_size: Images per batch. The last, shorter batch of an epoch is dropped.
        split_seed: Which images are for validation; the same for all runs that are compared.
    """

    in_features = 64
    out_features = 10

    def __init__(self, batch_size: int = 64, split_seed: int = 0) -> None:
        super().__init__()
        pixels, labels = load_digits(return_X_y=True)
        train, val, train_labels, val_labels = train_test_split(
            pixels, labels, test_size=0.2, stratify=labels, random_state=split_seed
        )
        if not isinstance(batch_size, int) or not 1 <= batch_size <= len(train):
            raise ValueError(f"batch_size must be a whole number from 1 to {len(train)}, got {batch_size!r}")
        self.batch_size = batch_size
        scaler = StandardScaler().fit(train)
        self._train = _dataset(scaler.transform(train), train_labels)
        self._val = _dataset(scaler.transform(val), val_labels)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return DataLoader(self._train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in one batch."""
        return DataLoader(self._val, len(self._val))


def _dataset(pixels: Any, labels: Any) -> TensorDataset:
    return TensorDataset(torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels))
