"""Sequences to classify at their end."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.digits import Digits


class PixelDigits(LightningDataModule):
    """Scikit-learn's digits, read some pixels at a time: ``(batch, steps, 64 / steps)``.

    Args:
        batch_size: As for :class:`Digits`.
        steps: Steps of a sequence, a divisor of 64: 64 reads pixel by pixel, 8 row by row.
        split_seed: As for :class:`Digits`.
    """

    out_features = Digits.out_features

    def __init__(self, batch_size: int = 64, steps: int = 64, split_seed: int = 0) -> None:
        super().__init__()
        if not isinstance(steps, int) or steps < 1 or Digits.in_features % steps:
            raise ValueError(f"steps must be a divisor of {Digits.in_features}, got {steps!r}")
        self.in_features = Digits.in_features // steps
        self._digits = Digits(batch_size, split_seed)
        self._shape = (steps, self.in_features)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return self._as_sequences(self._digits.train_dataloader(), shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in one batch."""
        return self._as_sequences(self._digits.val_dataloader(), shuffle=False)

    def _as_sequences(self, loader: DataLoader[Any], shuffle: bool) -> DataLoader[Any]:
        pixels, labels = loader.dataset.tensors  # type: ignore[attr-defined]
        sequences = TensorDataset(pixels.view(-1, *self._shape), labels)
        return DataLoader(sequences, loader.batch_size, shuffle=shuffle, drop_last=shuffle)


class TemporalOrder(LightningDataModule):
    """The temporal order problem (Hochreiter & Schmidhuber 1997; Pascanu et al. 2013): which came first?

    Each sequence is made of four distractors, but for two places, one in its second tenth and one in its fifth, that
    hold A or B each; which of the four combinations it was is the class. Six symbols, one hot.

    Args:
        batch_size: Sequences per batch.
        length: Steps of a sequence, at least 10.
        count: Sequences for training; as many as 1000 more are for validation.
        data_seed: Which sequences.
    """

    in_features = 6
    out_features = 4

    def __init__(self, batch_size: int = 20, length: int = 30, count: int = 8000, data_seed: int = 0) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("length", length, 10), ("count", count, batch_size)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(data_seed)
        self._train = TensorDataset(*_temporal_order(count, length, generator))
        self._val = TensorDataset(*_temporal_order(1000, length, generator))

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return DataLoader(self._train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation sequences in one batch."""
        return DataLoader(self._val, len(self._val))


def _temporal_order(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    symbols = draw(2, 6, count, length)
    rows = torch.arange(count)
    first, second = draw(0, 2, count), draw(0, 2, count)
    symbols[rows, draw(length // 10, 2 * length // 10, count)] = first
    symbols[rows, draw(4 * length // 10, 5 * length // 10, count)] = second
    return torch.nn.functional.one_hot(symbols, 6).float(), 2 * first + second
