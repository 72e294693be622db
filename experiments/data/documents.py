"""Prose and source code that ship with Python, as tokens for a language model."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.batches import sampled
from experiments.data.staged import Staged

ALPHABET = 128  # bytes of ASCII
VALIDATION = 4096  # tokens of each source: enough to tell models .02 nats apart, since all see the same

Tokens = Literal["bytes", "words"]


class Documents(LightningDataModule):
    """Windows of text to predict the next token in, for a fixed number of batches.

    The text is the topics of Python's ``help()`` (prose) and the modules of its standard library (code); what is not
    ASCII is left out. A batch is the tokens ``(batch, context)`` and those that follow each of them, of the same shape.
    The last twentieth of each source is kept from training; its first 4096 tokens are for validation. Some paragraphs
    of the topics stand in several of them.

    Args:
        batch_size: Windows per batch.
        context: Tokens of a window.
        steps: Batches of an epoch, which are drawn anew for each.
        code_from: Up to this batch all windows are prose, from it on all are code: another, harder text. None: windows
            of both from the start, and validation on both; else on code alone.
        tokens: ``"bytes"``, or ``"words"``: words, runs of spaces and single signs, those that are not among the
            ``vocabulary - 1`` most frequent as one.
        vocabulary: Number of different tokens; only for words.
        limit: How many characters of each source are read. The topics have some 460,000.
    """

    def __init__(
        self,
        batch_size: int = 16,
        context: int = 32,
        steps: int = 300,
        code_from: int | None = None,
        tokens: Tokens = "bytes",
        vocabulary: int = ALPHABET,
        limit: int = 460_000,
    ) -> None:
        super().__init__()
        if not isinstance(context, int) or not 1 <= context <= VALIDATION:
            raise ValueError(f"context must be a whole number from 1 to {VALIDATION}, got {context!r}")
        if tokens not in ("bytes", "words"):
            raise ValueError(f"tokens must be 'bytes' or 'words', got {tokens!r}")
        self.in_features = self.out_features = ALPHABET if tokens == "bytes" else vocabulary
        self.batch_size, self.context, self.steps, self.code_from = batch_size, context, steps, code_from
        sources = encoded(tokens, self.in_features, limit)
        cuts = [len(source) * 19 // 20 for source in sources]
        kept = [source[cut : cut + VALIDATION + 1] for source, cut in zip(sources, cuts, strict=True)]
        windows = [_windows(source[:cut], context) for source, cut in zip(sources, cuts, strict=True)]
        self._prose = len(windows[0][0])
        self._train = TensorDataset(*(torch.cat(parts) for parts in zip(*windows, strict=True)))
        held_out = [_windows(source, context) for source in (kept if code_from is None else kept[1:])]
        self._val = TensorDataset(*(torch.cat(parts) for parts in zip(*held_out, strict=True)))

    def train_dataloader(self) -> DataLoader[Any]:
        """Random windows."""
        everything = range(len(self._train))
        pools: list[tuple[int, Any]] = [(0, everything)]
        if self.code_from is not None:
            pools = [(0, everything[: self._prose]), (self.code_from, everything[self._prose :])]
        return sampled(self._train, Staged(pools, self.batch_size, self.steps))

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation windows, in batches of 64."""
        return DataLoader(self._val, batch_size=64)


@cache
def encoded(tokens: Tokens, vocabulary: int, limit: int) -> tuple[Tensor, ...]:
    """Return prose and code as numbers."""
    texts = [_prose()[:limit], _code(limit)]
    if tokens == "bytes":
        return tuple(torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8).long() for text in texts)
    words = [re.findall(r"[A-Za-z]+|\d|\s+|[^\sA-Za-z\d]", text) for text in texts]
    common = Counter(word for source in words for word in source).most_common(vocabulary - 1)
    numbers = {word: number for number, (word, _) in enumerate(common, start=1)}
    return tuple(torch.tensor([numbers.get(word, 0) for word in source]) for source in words)


def _prose() -> str:
    return "".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore").decode("ascii")


def _code(limit: int) -> str:
    parts, length = [], 0
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        parts.append(file.read_bytes().decode("ascii", "ignore"))
        length += len(parts[-1])
        if length >= limit:
            break
    return "".join(parts)[:limit]


def _windows(tokens: Tensor, context: int) -> tuple[Tensor, Tensor]:
    count = (len(tokens) - 1) // context
    return tokens[: count * context].view(count, context), tokens[1 : count * context + 1].view(count, context)
