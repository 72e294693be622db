"""Networks that are trained for the benchmarks, with a batch of random data each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from experiments.bench.shapes import Shapes

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A network, its batch and its optimizer.

    Attributes:
        name: What it is.
        network: Makes the network.
        batch: Inputs and target classes; classes are the last dimension of the network's output.
        optimizer: Makes the optimizer.
    """

    name: str
    network: Callable[[], nn.Module]
    batch: Batch
    optimizer: Callable[[Any], torch.optim.Optimizer]

    def module(self) -> LightningModule:
        """Return a freshly initialised module, always the same."""
        torch.manual_seed(0)
        return _Classifier(self.network(), self.optimizer)

    def shapes(self) -> Shapes:
        """Return the shapes of its parameters."""
        return [tuple(parameter.shape) for parameter in self.network().parameters()]

    def batches(self) -> Iterator[Batch]:
        """The batch, without end."""
        return repeat(self.batch)


def convolutional(images: int = 8, size: int = 64, stages: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> Task:
    """A residual network of bottlenecks; with its defaults ResNet-50."""
    return Task(
        "ResNet-50" if stages == (3, 4, 6, 3) else "residual network",
        lambda: _residual(stages, width, classes=1000),
        (_random(images, 3, size, size), _classes(1000, images)),
        lambda parameters: torch.optim.SGD(parameters, lr=1e-5, momentum=0.9),
    )


def transformer(layers: int = 4, width: int = 256, sequences: int = 4, length: int = 64) -> Task:
    """A decoder like GPT-2."""
    vocabulary = 4096
    tokens = _classes(vocabulary, sequences, length + 1)
    return Task(
        "GPT-like",
        lambda: _Decoder(vocabulary, layers, width, length),
        (tokens[:, :-1], tokens[:, 1:]),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
    )


def deep_mlp(layers: int = 500, width: int = 64, rows: int = 64) -> Task:
    """A deep residual stack of small linear layers, two tensors each."""
    return Task(
        "MLP of small layers",
        lambda: nn.Sequential(*(_Residual(nn.Sequential(nn.Linear(width, width), nn.ReLU())) for _ in range(layers))),
        (_random(rows, width), _classes(width, rows)),
        lambda parameters: torch.optim.SGD(parameters, lr=1e-5),
    )


class _Classifier(LightningModule):
    def __init__(self, network: nn.Module, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.network(inputs).flatten(0, -2), targets.flatten())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


class _Residual(nn.Module):
    """Adds what a branch makes of the input to the input; where their shapes differ a projection stands in."""

    def __init__(self, branch: nn.Module, projection: nn.Module | None = None, scale: float = 0.05) -> None:
        super().__init__()
        self.branch, self.projection, self.scale = branch, projection or nn.Identity(), scale

    def forward(self, inputs: Tensor) -> Tensor:
        return self.projection(inputs) + self.scale * self.branch(inputs)


class _Decoder(nn.Module):
    def __init__(self, vocabulary: int, layers: int, width: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(tokens) + self.places, mask=self.mask, is_causal=True))


def _residual(stages: tuple[int, ...], width: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = [*_convolution(3, width, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    inputs = width
    for stage, blocks in enumerate(stages):
        middle = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            branch = nn.Sequential(
                *(*_convolution(inputs, middle, 1), nn.ReLU()),
                *(*_convolution(middle, middle, 3, stride), nn.ReLU()),
                *_convolution(middle, 4 * middle, 1),
            )
            projection = None if block else nn.Sequential(*_convolution(inputs, 4 * middle, 1, stride))
            layers += [_Residual(branch, projection, scale=1.0), nn.ReLU()]
            inputs = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _classes(count: int, *shape: int) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(0))
