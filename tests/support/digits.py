"""Networks with a bad initialisation, and their training on scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.helpers import SGD, Regression, fit, mlp


class Classifier(Regression):
    """Cross-entropy on the digits, with the rate multiplied at some steps."""

    def __init__(self, *args: Any, rates: dict[int, float] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates = rates or {}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        group = self.trainer.optimizers[0].param_groups[0]
        group.setdefault("first_lr", group["lr"])
        self.trainer.optimizers[0].param_groups[0]["lr"] = group["first_lr"] * self.rates.get(self.global_step, 1.0)
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])


class Residual(nn.Module):
    """A block whose branch is as large as what it is added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = mlp(width, width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # type: ignore[no-any-return]


def digits() -> tuple[DataLoader[Any], Tensor, Tensor]:
    """Batches to train with, and the images and labels of other writers."""
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = ((images - images.mean(0)) / (images.std(0) + 1e-6)).float()
    train = TensorDataset(images[:1437], labels[:1437])
    return DataLoader(train, 64, shuffle=True), images[1437:], labels[1437:]


def accuracy(
    model: nn.Module, make: Callable[..., Any], *callbacks: Callback, epochs: int = 12, **options: Any
) -> float:
    """Train on the digits, and return the share of those of other writers that are named right."""
    loader, images, labels = digits()
    fit(Classifier(model, make, **options), *callbacks, data=loader, max_epochs=epochs)
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def each(model: nn.Module, initialise: Callable[[Tensor], Any]) -> nn.Module:
    """Initialise all matrices so, and the rest with zeros."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            initialise(parameter)
        else:
            nn.init.zeros_(parameter)
    return model


he = partial(nn.init.kaiming_normal_, nonlinearity="relu")
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
    "sigmoid 8": (
        lambda: each(mlp(64, *[64] * 8, 10, activation=nn.Sigmoid), nn.init.xavier_normal_),
        partial(SGD, lr=0.1, momentum=0.9),
    ),
    "default 24": (lambda: mlp(64, *[64] * 24, 10), partial(SGD, lr=0.05)),
    "xavier 30": (
        lambda: each(mlp(64, *[64] * 30, 10), nn.init.xavier_normal_),
        partial(SGD, lr=0.003, momentum=0.9),
    ),
    "large": (
        lambda: each(mlp(64, *[64] * 6, 10), partial(nn.init.normal_, std=0.6)),
        partial(SGD, lr=0.02, momentum=0.9),
    ),
    "unscaled 20": (
        lambda: each(nn.Sequential(nn.Linear(64, 64), *[Residual(64) for _ in range(20)], nn.Linear(64, 10)), he),
        partial(SGD, lr=0.01, momentum=0.9),
    ),
}
