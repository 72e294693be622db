"""Words of a text that ships with Python."""

from __future__ import annotations

import re
from functools import cache
from pydoc_data.topics import topics

import torch
from torch import Tensor

from experiments.data.arrays import Arrays

SUBJECTS = 5


class Words(Arrays):
    """Snippets of the five longest topics of Python's ``help()``; the class is the topic.

    Most of the words are rare: half of them occur once or twice.

    Args:
        batch_size: Snippets per batch.
        length: Words of a snippet.
        split_seed: Which snippets are for validation, a fifth of them.
    """

    out_features = SUBJECTS

    def __init__(self, batch_size: int = 32, length: int = 24, split_seed: int = 0) -> None:
        snippets, labels, self.in_features = _snippets(length)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(split_seed))
        train, val = order[len(order) // 5 :], order[: len(order) // 5]
        super().__init__((snippets[train], labels[train]), (snippets[val], labels[val]), batch_size)


@cache
def _snippets(length: int) -> tuple[Tensor, Tensor, int]:
    longest = sorted(topics, key=lambda name: (-len(topics[name]), name))[:SUBJECTS]
    texts = [re.findall(r"[a-z]+", topics[name].lower()) for name in longest]
    numbers = {word: number for number, word in enumerate(sorted({word for text in texts for word in text}))}
    snippets, labels = [], []
    for label, text in enumerate(texts):
        for start in range(0, len(text) - length + 1, length):
            snippets.append([numbers[word] for word in text[start : start + length]])
            labels.append(label)
    return torch.tensor(snippets), torch.tensor(labels), len(numbers)
