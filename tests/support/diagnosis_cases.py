"""Small models gone wrong, with real gradients, and the case that an engine would make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grad_callbacks import Alert
from grad_callbacks.detection.diagnosis import Case
from grad_callbacks.detection.rules.vanishing import Vanishing
from grad_callbacks.events import Severity
from grad_callbacks.measurement import Reading
from tests.support.helpers import layers_of, read

Init = Callable[[nn.Linear], object]
Batch = tuple[Tensor, Tensor]


def he(layer: nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


def xavier(layer: nn.Linear) -> None:
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)


def normal(std: float) -> Init:
    def init(layer: nn.Linear) -> None:
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)

    return init


class Deep(nn.Module):
    """A plain stack: ``blocks.i.linear``, ``blocks.i.activation``; optional norms."""

    def __init__(
        self,
        depth: int,
        activation: type[nn.Module] | Callable[[Tensor], Tensor],
        init: Init | None = None,
        width: int = 64,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.function = None if isinstance(activation, type) else activation
        self.blocks = nn.ModuleList()
        for index in range(depth):
            block = nn.ModuleDict({"linear": nn.Linear(16 if index == 0 else width, width)})
            if norm:
                block["norm"] = nn.BatchNorm1d(width)
            if isinstance(activation, type):
                block["activation"] = activation()
            self.blocks.append(block)
        self.head = nn.Linear(width, 10)
        for module in self.modules():
            if init is not None and isinstance(module, nn.Linear):
                init(module)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            for module in block.values():  # type: ignore[operator, union-attr]
                x = module(x)
            x = x if self.function is None else self.function(x)
        return self.head(x)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Blocks of two layers with a skip around each."""

    def __init__(self, blocks: int, width: int = 32, init: Init | None = he) -> None:
        super().__init__()
        self.first = nn.Linear(16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)
        for module in self.modules():
            if init is not None and isinstance(module, nn.Linear):
                init(module)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A recurrent layer over a sequence of 16 features; the last step is classified."""

    def __init__(self, kind: type[nn.RNNBase] = nn.RNN, radius: float | None = None) -> None:
        super().__init__()
        self.memory = kind(16, 32, batch_first=True)
        self.head = nn.Linear(32, 10)
        if radius is not None:
            with torch.no_grad():
                weight = self.memory.weight_hh_l0
                weight.mul_(radius / torch.linalg.eigvals(weight).abs().max())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Encoder blocks over 16 features, mean over time."""

    def __init__(self, blocks: int = 4, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(dim=1))  # type: ignore[no-any-return]


def classes(seed: int = 0, size: int = 32, time: int | None = None) -> Batch:
    """Standardised inputs with ten classes that can be learned."""
    generator = torch.Generator().manual_seed(1000 + seed)
    shape = (size, 16) if time is None else (size, time, 16)
    inputs = torch.randn(shape, generator=generator)
    mixing = torch.randn(16, 10, generator=torch.Generator().manual_seed(7))
    return inputs, (inputs if time is None else inputs[:, -1]).matmul(mixing).argmax(dim=1)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


Loss = Callable[[nn.Module, Any], Tensor]


class Run:
    """A plain loop that stops in front of a step, and says all that is known there."""

    def __init__(
        self, model: nn.Module, loss: Loss = cross_entropy, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self.model, self.loss = model, loss
        self.optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
        self.losses: list[float] = []
        self.latest = math.nan
        self.batch: Any = None
        self.previous: Any = None

    def backward(self, batch: Any) -> None:
        """Compute the loss and the gradients of a step, which is not taken yet."""
        if self.batch is not None:
            self.previous = self.batch
            self.losses.append(self.latest)
        self.batch = batch
        self.optimizer.zero_grad()
        loss = self.loss(self.model, batch)
        self.latest = float(loss.detach())
        loss.backward()

    def train(self, batches: Sequence[Any]) -> Run:
        for batch in batches:
            self.backward(batch)
            self.optimizer.step()
        return self

    def stop_at(self, batch: Any) -> Run:
        self.backward(batch)
        return self

    @property
    def reading(self) -> Reading:
        found = read(layers_of(self.model), step=len(self.losses))
        assert found is not None
        return found

    def case(self, **options: Any) -> Case:
        previous, batch = self.previous, self.batch
        known = {
            "reading": self.reading,
            "optimizer": self.optimizer,
            "loss": self.latest,
            "losses": self.losses,
            "batch": batch,
            "previous_batch": previous,
            "replay": lambda: self.loss(self.model, batch),
            "replay_previous": None if previous is None else lambda: self.loss(self.model, previous),
        }
        return Case(self.model, **(known | options))

    def alert(self, kind: str, severity: Severity = "critical") -> Alert:
        reading = self.reading
        return Alert(kind, severity, reading.step, reading.layers.names[:3], "seen", {"norm": 1.0}, "a guess", "look")


def vanishes(run: Run) -> bool:
    """True if the real gradients have the shape that the rule looks for, in layers that stand still."""
    reading = replace(run.reading, motion=np.zeros(len(run.reading.layers.names)))
    return Vanishing(patience=1).judge(reading) is not None


def trained(steps: int = 30, lr: float = 0.05) -> Run:
    """A healthy run that has taken some steps."""
    model = Deep(3, nn.ReLU, he)
    run = Run(model, optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9))
    return run.train([classes(step) for step in range(steps)])
