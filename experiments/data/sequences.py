"""Sequences to classify at their end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.data.arrays import Arrays
from experiments.data.digits import Digits


class PixelDigits(Arrays):
    """Scikit-learn's digits, read some pixels at a time: ``(batch, steps, 64 / steps)``.

    Args:
        batch_size: As for :class:`Digits`.
        steps: Steps of a sequence, a divisor of 64: 64 reads pixel by pixel, 8 row by row.
        split_seed: As for :class:`Digits`.
    """

    out_features = Digits.out_features

    def __init__(self, batch_size: int = 64, steps: int = 64, split_seed: int = 0) -> None:
        if not isinstance(steps, int) or steps < 1 or Digits.in_features % steps:
            raise ValueError(f"steps must be a divisor of {Digits.in_features}, got {steps!r}")
        self.in_features = Digits.in_features // steps
        digits = Digits(batch_size, split_seed)
        train, val = (
            _as_sequences(loader.dataset, steps) for loader in (digits.train_dataloader(), digits.val_dataloader())
        )
        super().__init__(train, val, batch_size)


class TemporalOrder(Arrays):
    """The temporal order problem (Hochreiter & Schmidhuber 1997; Pascanu et al. 2013): which came first?

    Each sequence is made of four distractors, but for two places, one in its second tenth and one in its fifth, that
    hold A or B each; which of the four combinations it was is the class. Six symbols, one hot.

    Args:
        batch_size: Sequences per batch.
        length: Steps of a sequence, at least 10.
        count: Sequences for training; 1000 more are for validation.
        data_seed: Which sequences.
    """

    in_features = 6
    out_features = 4

    def __init__(self, batch_size: int = 20, length: int = 30, count: int = 8000, data_seed: int = 0) -> None:
        for name, value, least in (("length", length, 10), ("count", count, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        draw = torch.Generator().manual_seed(data_seed)
        super().__init__(_temporal_order(count, length, draw), _temporal_order(1000, length, draw), batch_size)


def _as_sequences(digits: Any, steps: int) -> tuple[Tensor, Tensor]:
    pixels, labels = digits.tensors
    return pixels.view(len(pixels), steps, -1), labels


def _temporal_order(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    symbols = draw(2, 6, count, length)
    rows = torch.arange(count)
    first, second = draw(0, 2, count), draw(0, 2, count)
    symbols[rows, draw(length // 10, 2 * length // 10, count)] = first
    symbols[rows, draw(4 * length // 10, 5 * length // 10, count)] = second
    return torch.nn.functional.one_hot(symbols, 6).float(), 2 * first + second
