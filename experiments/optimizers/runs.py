"""One small training with one optimizer, alone or under a callback, healthy or with a fault."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from experiments.optimizers.catalogue import STEPS, Make
from grad_callbacks import Engine, Prescription

FAULT_AT = STEPS // 2
FAULTS = ("none", "NaN batch", "loss x 1e6", "rate x 1000")


@dataclass(frozen=True)
class Ran:
    """How a training ended.

    Attributes:
        error: What it raised; empty if it finished.
        weights: A digest of the weights.
        loss: Over all data, at the end.
        remedies: What was applied.
    """

    error: str
    weights: str
    loss: float
    remedies: list[str] = field(default_factory=list)


def train(make: Make, how: str, fault: str) -> Ran:
    """Train a small classifier with convolution, normalisation and linear layers, with a fault half way.

    The closure is evaluated first in each step, as Lightning's is.

    Args:
        make: Makes the optimizer.
        how: ``"alone"``, ``"monitor"`` or ``"guard"``.
        fault: One of :data:`FAULTS`.
    """
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)),
    )
    inputs, targets = _data()
    optimizer, engine, error = make(net), None, ""
    if how != "alone":
        engine = Engine(net, optimizer, prescription=Prescription() if how == "guard" else None)
    torch.manual_seed(0)
    try:
        for step in range(STEPS):
            if fault == "rate x 1000" and step == FAULT_AT:
                for group in optimizer.param_groups:
                    group["lr"] *= 1000
            rows = slice(32 * step, 32 * step + 32)
            factor = {"NaN batch": math.nan, "loss x 1e6": 1e6}.get(fault, 1.0) if step == FAULT_AT else 1.0
            _step(net, optimizer, engine, inputs[rows], targets[rows], factor)
    except Exception as raised:
        error = f"{type(raised).__name__}: {str(raised).splitlines()[0] if str(raised) else ''}"
    remedies = [] if engine is None else [made.remedy for made in engine.record.interventions]
    return Ran(error, _digest(net), _loss(net, inputs, targets), remedies)


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    engine: Engine | None,
    inputs: Tensor,
    targets: Tensor,
    factor: float,
) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), targets) * factor
        loss.backward()
        if engine is not None:
            engine.before_step(loss=loss)
        return loss

    optimizer.step(closure)


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32 * STEPS, 16, generator=generator)
    return inputs, (inputs @ torch.randn(16, 4, generator=generator)).argmax(1)


def _digest(net: nn.Module) -> str:
    found = hashlib.sha256()
    for tensor in net.state_dict().values():
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def _loss(net: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    return float(nn.functional.cross_entropy(net(inputs), targets))
