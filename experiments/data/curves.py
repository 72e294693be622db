"""Generated regression."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data.arrays import Arrays


class Line(Arrays):
    """A straight line: two parameters are enough.

    Args:
        noise: Spread of the targets around it, of which each is 2 x + 1.
        count: Points to train on; as many validate.
        batch_size: Points per batch.
        split_seed: Draws the points.
    """

    in_features = 1
    out_features = 1

    def __init__(self, noise: float = 0.1, count: int = 256, batch_size: int = 16, split_seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(split_seed)
        inputs = torch.randn(2 * count, 1, generator=draw)
        targets = 2 * inputs + 1 + noise * torch.randn(2 * count, 1, generator=draw)
        super().__init__((inputs[:count], targets[:count]), (inputs[count:], targets[count:]), batch_size)


class Waves(Arrays):
    """A sum of sines of eight inputs.

    Args:
        noise: Spread of Student's t noise on the training targets; the validation targets are free of it.
        freedom: Degrees of freedom of the noise. Up to 2 it has no variance.
        scale: Multiplies all targets.
        count: Points to train on; a quarter as many validate.
        batch_size: Points per batch.
        split_seed: Draws the points.
    """

    in_features = 8
    out_features = 1

    def __init__(
        self,
        noise: float = 0.0,
        freedom: int = 2,
        scale: float = 1.0,
        count: int = 2000,
        batch_size: int = 64,
        split_seed: int = 0,
    ) -> None:
        draw = torch.Generator().manual_seed(split_seed)
        inputs = torch.randn(count + count // 4, self.in_features, generator=draw)
        directions = torch.randn(self.in_features, 4, generator=draw) / self.in_features**0.5
        targets = torch.sin(inputs @ directions).sum(dim=1, keepdim=True)
        clean, val = targets[:count], targets[count:]
        train = clean + noise * _students(clean.shape, freedom, draw)
        super().__init__((inputs[:count], scale * train), (inputs[count:], scale * val), batch_size)


class Inverse(Arrays):
    """A curve that is read the wrong way round, so that an input has up to three answers (Bishop 1994).

    The input is y + 0.3 sin(2 pi y) with a little noise, of which y, uniform between 0 and 1, is asked for. Both are
    brought to mean 0 and spread 1.

    Args:
        scale: Multiplies the targets.
        count: Points to train on; a quarter as many validate.
        batch_size: Points per batch.
        split_seed: Draws the points.
    """

    in_features = 1
    out_features = 1

    def __init__(self, scale: float = 1.0, count: int = 4000, batch_size: int = 128, split_seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(split_seed)
        answers = torch.rand(count + count // 4, 1, generator=draw)
        inputs = answers + 0.3 * torch.sin(2 * torch.pi * answers) + 0.03 * torch.randn(answers.shape, generator=draw)
        inputs, answers = ((part - part.mean()) / part.std() for part in (inputs, answers))
        targets = scale * answers
        super().__init__((inputs[:count], targets[:count]), (inputs[count:], targets[count:]), batch_size)


def _students(shape: torch.Size, freedom: int, draw: torch.Generator) -> Tensor:
    squares = torch.randn(freedom, *shape, generator=draw).square().sum(dim=0)
    return torch.randn(shape, generator=draw) / (squares / freedom).sqrt()
