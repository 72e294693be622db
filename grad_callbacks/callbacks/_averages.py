"""Averages of the weights that other callbacks keep."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel


@torch.no_grad()
def restart_averages(trainer: Trainer) -> int:
    """Let averages of the weights begin again with the present ones, and return how many there are.

    What they have averaged since holds the weights that a remedy has just thrown away, and would hand them on when the
    training ends.
    """
    found = [average for average in _averages(trainer) if _fits(average.module, trainer.lightning_module)]
    for average in found:
        for mine, new in zip(_tensors(average.module), _tensors(trainer.lightning_module), strict=True):
            mine.copy_(new)
        average.n_averaged.zero_()
    return len(found)


def _averages(trainer: Trainer) -> Iterator[AveragedModel]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # of the Trainer
        yield from (value for value in vars(callback).values() if isinstance(value, AveragedModel))


def _fits(average: nn.Module, model: nn.Module) -> bool:
    return [tensor.shape for tensor in _tensors(average)] == [tensor.shape for tensor in _tensors(model)]


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return chain(model.parameters(), model.buffers())
