"""Text that ships with Python."""

from __future__ import annotations

from functools import cache
from pydoc_data.topics import topics

import torch
from torch import Tensor

from experiments.data.arrays import Arrays

VALIDATION = 4096  # characters: enough to tell good from bad


class Text(Arrays):
    """The topics of Python's ``help()``, some 460,000 characters, as windows to predict the next character in.

    A batch is the tokens ``(batch, context)`` and the tokens that follow each of them, of the same shape. The last
    tenth of the text is kept from training; its first 4096 characters are for validation.

    Args:
        batch_size: Windows per batch. The last, shorter batch of an epoch is dropped.
        context: Characters of a window.
    """

    def __init__(self, batch_size: int = 32, context: int = 32) -> None:
        tokens, self.in_features = _tokens()
        self.out_features = self.in_features
        self.context = context
        cut = len(tokens) * 9 // 10
        if not isinstance(context, int) or not 1 <= context <= VALIDATION:
            raise ValueError(f"context must be a whole number from 1 to {VALIDATION}, got {context!r}")
        validation = tokens[cut : cut + VALIDATION + 1]
        super().__init__(_windows(tokens[:cut], context), _windows(validation, context), batch_size)


@cache
def _tokens() -> tuple[Tensor, int]:
    text = "".join(topics[name] for name in sorted(topics))
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet)


def _windows(tokens: Tensor, context: int) -> tuple[Tensor, Tensor]:
    count = (len(tokens) - 1) // context
    inputs, targets = tokens[: count * context], tokens[1 : count * context + 1]
    return inputs.view(count, context), targets.view(count, context)
