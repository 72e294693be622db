"""Text that ships with Python."""

from __future__ import annotations

from functools import cache
from pydoc_data.topics import topics
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class Text(LightningDataModule):
    """The topics of Python's ``help()``, some 460,000 characters, as windows to predict the next character in.

    A batch is the tokens ``(batch, context)`` and the tokens that follow each of them, of the same shape. The last
    tenth of the text is for validation.

    Args:
        batch_size: Windows per batch. The last, shorter batch of an epoch is dropped.
        context: Characters of a window.
    """

    def __init__(self, batch_size: int = 32, context: int = 32) -> None:
        super().__init__()
        tokens, self.in_features = _tokens()
        self.out_features = self.in_features
        cut = len(tokens) * 9 // 10
        most = (cut - 1) // context if isinstance(context, int) and context >= 1 else 0
        if not most:
            raise ValueError(f"context must be a whole number from 1 to {cut - 1}, got {context!r}")
        if not isinstance(batch_size, int) or not 1 <= batch_size <= most:
            raise ValueError(f"batch_size must be a whole number from 1 to {most}, got {batch_size!r}")
        self.batch_size = batch_size
        self.context = context
        self._train = _windows(tokens[:cut], context)
        self._val = _windows(tokens[cut : cut + 4096 + 1], context)  # enough to tell good from bad

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled windows."""
        return DataLoader(self._train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """The first 4096 characters for validation in one batch."""
        return DataLoader(self._val, len(self._val))


@cache
def _tokens() -> tuple[Tensor, int]:
    text = "".join(topics[name] for name in sorted(topics))
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet)


def _windows(tokens: Tensor, context: int) -> TensorDataset:
    count = (len(tokens) - 1) // context
    inputs, targets = tokens[: count * context], tokens[1 : count * context + 1]
    return TensorDataset(inputs.view(count, context), targets.view(count, context))
