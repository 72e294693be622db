"""Several digits in a row, to be read without being told where each of them is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.data.arrays import Arrays
from experiments.data.digits import Digits

SIDE = 8


class DigitStrings(Arrays):
    """Images of digits side by side, read column by column: ``(batch, 8 * length, 8)``; targets ``(batch, length)``.

    Args:
        length: Digits of a string.
        count: Strings to train on; an eighth as many validate, of images of their own.
        batch_size: Strings per batch.
        split_seed: Which images validate, and how strings are put together.
    """

    in_features = SIDE
    out_features = Digits.out_features

    def __init__(self, length: int = 2, count: int = 4000, batch_size: int = 32, split_seed: int = 0) -> None:
        digits = Digits(batch_size, split_seed)
        draw = torch.Generator().manual_seed(split_seed)

        def strings(dataset: Any, number: int) -> tuple[Tensor, Tensor]:
            images, labels = dataset.tensors
            chosen = torch.randint(len(labels), (number, length), generator=draw)
            columns = images.view(-1, SIDE, SIDE).transpose(1, 2)[chosen]
            return columns.reshape(number, length * SIDE, SIDE), labels[chosen]

        train, val = digits.train_dataloader().dataset, digits.val_dataloader().dataset
        super().__init__(strings(train, count), strings(val, count // 8), batch_size)
