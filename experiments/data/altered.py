"""The digits with what real data suffers from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.batches import sampled, shuffled
from experiments.data.digits import Digits
from experiments.data.staged import Staged


class AlteredDigits(Digits):
    """The digits, their training half altered; the validation images stay as they are.

    Args:
        batch_size: As for :class:`Digits`.
        split_seed: As for :class:`Digits`.
        size: Keep so many training images only.
        wrong_labels: Share of the training labels that are drawn at random.
        rare: Keep this share of the training images of the classes 5 to 9.
        tails: Multiply each training image by a log-normal factor of this spread.
        drop_last: Drop the last, shorter batch of an epoch.
    """

    def __init__(
        self,
        batch_size: int = 64,
        split_seed: int = 0,
        size: int | None = None,
        wrong_labels: float = 0.0,
        rare: float = 1.0,
        tails: float = 0.0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(batch_size, split_seed)
        self.drop_last = drop_last
        draw = torch.Generator().manual_seed(split_seed)
        images, labels = self._train.tensors
        kept = (labels < 5) | (torch.rand(len(labels), generator=draw) < rare)
        images, labels = images[kept][:size], labels[kept][:size].clone()
        if batch_size > len(images):
            raise ValueError(f"batch_size must be at most the {len(images)} images that are kept, got {batch_size}")
        wrong = torch.rand(len(labels), generator=draw) < wrong_labels
        labels[wrong] = torch.randint(10, (int(wrong.sum()),), generator=draw)
        factors = torch.exp(tails * torch.randn(len(images), 1, generator=draw))
        self._train = TensorDataset(images * factors, labels)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return shuffled(self._train, self.batch_size, self.drop_last)


class StagedDigits(Digits):
    """The digits with another choice of training images from a step on.

    ``curriculum``: the classes 0 to 4 first, then all. ``small``: the first 64 images, but for one batch of unseen
    ones at ``step``. ``outlier``: all images, but for one batch at ``step`` that is ``factor`` times as bright.

    Args:
        stages: One of the three.
        step: When the choice changes.
        batch_size: As for :class:`Digits`.
        split_seed: As for :class:`Digits`.
        steps: Batches of an epoch, at least those of the whole run.
        factor: Of the outlying batch.
    """

    def __init__(
        self,
        stages: str,
        step: int,
        batch_size: int = 64,
        split_seed: int = 0,
        steps: int = 1000,
        factor: float = 30.0,
    ) -> None:
        super().__init__(batch_size, split_seed)
        images, labels = self._train.tensors
        everything = torch.arange(len(labels))
        extra = len(labels) + torch.arange(batch_size)
        self._train = TensorDataset(
            torch.cat([images, factor * images[:batch_size]]), torch.cat([labels, labels[:batch_size]])
        )
        pools: dict[str, list[tuple[int, Tensor]]] = {
            "curriculum": [(0, torch.nonzero(labels < 5).flatten()), (step, everything)],
            "small": [(0, everything[:64]), (step, everything[64:]), (step + 1, everything[:64])],
            "outlier": [(0, everything), (step, extra), (step + 1, everything)],
        }
        if stages not in pools:
            raise ValueError(f"stages must be one of {', '.join(pools)}, got {stages!r}")
        self._sampler = Staged(pools[stages], batch_size, steps)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the stage that the run is in."""
        return sampled(self._train, self._sampler)


class ShiftedDigits(Digits):
    """The digits mirrored, for a model that was trained on the plain ones.

    Args:
        batch_size: As for :class:`Digits`.
        split_seed: As for :class:`Digits`.
        mirrored: Whether they are; if not, the model goes on with what it knows.
    """

    def __init__(self, batch_size: int = 64, split_seed: int = 0, mirrored: bool = True) -> None:
        super().__init__(batch_size, split_seed)
        self._source = self._train
        if mirrored:
            self._train, self._val = (_mirrored(dataset) for dataset in (self._train, self._val))

    def source_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of the plain digits."""
        return shuffled(self._source, self.batch_size)


def _mirrored(dataset: TensorDataset) -> TensorDataset:
    images, labels = dataset.tensors
    return TensorDataset(images.unflatten(1, (8, 8)).flip(2).flatten(1), labels)
