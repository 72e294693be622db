"""Modules and data that a doctor is given by import path: ``tests.support.ill_modules.DeepNet``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TRAINED_ON = 1400
Loaders = tuple[DataLoader[Any], DataLoader[Any]]


class DeepNet(LightningModule):
    """A perceptron on the digits; each argument is a way to spoil it."""

    def __init__(
        self,
        activation: str = "ReLU",
        depth: int = 4,
        width: int = 32,
        lr: float = 0.05,
        softmax: bool = False,
        is_trained: bool = False,
        is_tied: bool = False,
        is_compiled: bool = False,
    ) -> None:
        super().__init__()
        sizes = [64, *[width] * (depth - 1), 10]
        layers = [(nn.Linear(*pair), getattr(nn, activation)()) for pair in pairwise(sizes)]
        self.net = nn.Sequential(*[module for pair in layers for module in pair][:-1])
        self.lr, self.softmax = lr, softmax
        if is_trained:
            for layer in self.net[::2]:  # heavy tails, as training leaves them
                layer.weight.data.copy_(0.05 * torch.distributions.StudentT(2.0).sample(layer.weight.shape))
        if is_tied:
            self.net[4].weight = self.net[2].weight
        if is_compiled:
            self.net.compile(backend="eager")

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return outputs.softmax(dim=1) if self.softmax else outputs

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", (self(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Scheduled(DeepNet):
    """Under a one-cycle schedule."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=400)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class DeadSoftmax(DeepNet):
    """Cross entropy of a softmax that is saturated from the start: no gradient comes back."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(softmax=True, **arguments)
        self.net[-1].bias.data[0] = 30.0


class Uniform(DeepNet):
    """Weights uniform in [0, 1): signal and error grow at every layer."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for parameter in self.parameters():
            nn.init.uniform_(parameter)


class Manual(DeepNet):
    """Steps its optimizer by itself, and returns no loss."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


class Broken(DeepNet):
    """Raises an error in its first step."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        raise KeyError("labels")


class PlainNet(nn.Module):
    """No LightningModule."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return outputs


class Digits(LightningDataModule):
    """The same data as a DataModule, without any attribute that tells their sizes."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return digits(self.batch_size)[0]

    def val_dataloader(self) -> DataLoader[Any]:
        return digits(self.batch_size)[1]


def digits(batch_size: int = 64, scale: float = 1.0) -> Loaders:
    """Loaders for training and validation."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32)
    data = scale * (inputs - inputs.mean()) / inputs.std(), torch.tensor(labels)
    parts = [TensorDataset(*(one[part] for one in data)) for part in (slice(TRAINED_ON), slice(TRAINED_ON, None))]
    return DataLoader(parts[0], batch_size, shuffle=True), DataLoader(parts[1], 512)
