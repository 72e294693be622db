"""The processor time that an engine adds to a step, beside that of torch's own clipping."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.bench import shapes
from experiments.bench.table import Row, Section
from experiments.bench.timing import DEVICE, ROUND, WARMUP, Call, Spread, interleave, ratio, seconds
from grad_callbacks import Engine, Prescription

CLIP = "`clip_grad_norm_`"
MONITOR, GUARD = "monitor", "guard"
WIDTH, BATCH = 64, 64
RATIO = 1.5  # promised for 1000 tensors, where the tensors take most of the time

METHOD = f"""Small networks, whose gradients are computed anew before each call, outside the timed part. *{MONITOR}*
is an engine with its default rules, *{GUARD}* one with the default prescription too and nothing to treat: the call
before the optimizer's step, and the hooks in it. The optimizer itself moves nothing. The first {3 * WARMUP} steps
are left out, and a round is {ROUND} calls of each in turns, of which one also measures weights and, in a guard, takes
a snapshot. Milliseconds are those of one step; they do not depend on the batch."""


class Still(torch.optim.Adam):
    """Moves nothing, with its hooks."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""


class Residual(nn.Module):
    """A stack of linear layers with residual connections, through which a gradient comes whatever the depth."""

    def __init__(self, layers: int, width: int = WIDTH // 4) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add each layer's share."""
        for layer in self.layers:
            inputs = inputs + layer(inputs.relu()) / len(self.layers)
        return inputs


def plain(layers: int) -> nn.Module:
    """A plain ReLU network, initialised as He et al. (2015) say."""
    made = [module for _ in range(layers) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())][:-1]
    for module in made[::2]:
        nn.init.kaiming_normal_(module.weight)  # type: ignore[arg-type]
    return nn.Sequential(*made)


def run(quick: bool) -> Section:
    """Time networks of 13 layers, 150 and 1000 tensors."""
    cases: list[tuple[Callable[[], nn.Module], int, dict[str, float]]] = [
        (lambda: plain(13), 6, {MONITOR: 0.15, GUARD: 0.2}),
        (lambda: Residual(75), 4, {MONITOR: 0.3, GUARD: 0.3}),
        (lambda: Residual(500), 3, {}),
    ]
    if quick:
        cases = [(lambda: plain(4), 2, {})]
    rows = []
    for make, rounds, promises in cases:
        torch.manual_seed(0)
        rows += _compare(make().to(DEVICE), rounds, promises, quick)
    return Section("What an engine adds to a step", METHOD, rows)


def _compare(model: nn.Module, rounds: int, promises: dict[str, float], quick: bool) -> list[Row]:
    parameters = list(model.parameters())
    inputs = torch.randn(BATCH, getattr(model, "width", WIDTH), device=DEVICE)
    latest: list[Tensor] = []

    def backward() -> None:
        model.zero_grad()
        loss = model(inputs + 0.05 * torch.randn_like(inputs)).square().mean()
        loss.backward()
        latest[:] = [loss]

    engines: dict[str, tuple[Engine, Still]] = {}
    for name, prescription in ((MONITOR, None), (GUARD, Prescription())):
        optimizer = Still(parameters)
        engines[name] = Engine(model, optimizer, prescription=prescription), optimizer
    variants: dict[str, Call] = {CLIP: partial(nn.utils.clip_grad_norm_, parameters, 1e9)}
    variants |= {name: partial(_step, *each, latest) for name, each in engines.items()}
    steps, warmup = (2, 1) if quick else (ROUND, 3 * WARMUP)
    times = interleave(variants, seconds, rounds, steps, warmup, backward)
    for engine, _ in engines.values():
        if engine.record.alerts:
            raise RuntimeError(f"this run should be healthy: {engine.record.alerts[0]}")
        engine.close()
    case = shapes.label([tuple(parameter.shape) for parameter in parameters])
    return [row for name in engines for row in _rows(case, name, times, promises.get(name))]


def _step(engine: Engine, optimizer: Still, latest: list[Any]) -> None:
    engine.before_step(loss=latest[0])
    optimizer.step()


def _rows(case: str, name: str, times: dict[str, list[float]], promise: float | None) -> list[Row]:
    milliseconds = Spread.of([1000 * value for value in times[name]])
    against = ratio(times[name], times[CLIP])
    return [
        Row(case, name, "nothing", milliseconds, promise, unit="ms"),
        Row(case, name, CLIP, against, None if promise else RATIO),
    ]
