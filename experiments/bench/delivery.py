"""What logging to MLflow adds to a step, by way of the journal and without it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from experiments.bench import models, shapes
from experiments.bench.fitting import fitting
from experiments.bench.pacing import Fit, Paced
from experiments.bench.table import Row, Section
from experiments.bench.timing import WARMUP, added_milliseconds, ratio
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger, prepare_store
from grad_callbacks.tracking.server import free_port, start_server, stop_server, wait_until_ready

BARE, AGAIN = "nothing logged", "nothing logged, again"
PROMISE = 3.0  # milliseconds a step
SLOWED = 1.02  # of a step, by 200 ms for each request
DELAY = 0.2

METHOD = f"""Ten scalars in every step, to one `JournaledMLFlowLogger` or Lightning's `MLFlowLogger`; *history* is a
`GradientMonitor()` beside it, which keeps every layer's norm. 150 steps with one variant are a turn, in one training;
the variants take turns in an order that is drawn anew for each round, and the first {WARMUP} steps do not count. *Wall*
is the time of a step, whatever made it wait. *CPU* is the processor time of all threads of the process, sending
included to the last metric, which other programs do not lengthen. *{AGAIN}* is the noise: it differs from
*{BARE}* in nothing."""


class Ten(Callback):
    """Logs ten scalars in every step."""

    def __init__(self, logger: MLFlowLogger) -> None:
        self.logger = logger
        self._step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log them."""
        self._step += 1
        self.logger.log_metrics({f"scalars/{i}": self._step / (i + 1) for i in range(10)}, step=self._step)


@dataclass
class Times:
    """Seconds a step, one number per round.

    Attributes:
        wall: Of the steps alone.
        cpu: Of all threads, until everything was sent.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def run(quick: bool) -> Section:
    """Log to an SQLite file, to a server, and to a server that is 200 ms away."""
    steps, warmup, rounds = (2, 1, 2) if quick else (150, WARMUP, 8)
    task = models.deep_mlp(layers=5 if quick else 75, rows=32)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sqlite, http = f"sqlite:///{folder}/local.db", stack.enter_context(_server(folder))
        slow = stack.enter_context(_slowed(http))
        prepare_store(sqlite)
        places = {"SQLite": sqlite, "HTTP": http, "HTTP + 200 ms": slow}
        loggers = {
            name: JournaledMLFlowLogger("bench", tracking_uri=uri, journal_dir=f"{folder}/journal", probe_timeout=60)
            for name, uri in places.items()
        }
        monitor = GradientMonitor()
        journaled: dict[str, list[Callback]] = {name: [Ten(logger)] for name, logger in loggers.items()}
        journaled |= {f"history, {name}": [*ten, monitor] for name, ten in journaled.items()}
        variants = {BARE: [], AGAIN: []} | journaled
        times = _rounds(fitting(task, None), variants, list(loggers.values()), rounds, steps, warmup)
        for logger in loggers.values():
            logger.close()
        plain = {name: [Ten(MLFlowLogger("bench", tracking_uri=places[name]))] for name in ("SQLite", "HTTP")}
        others = _rounds(fitting(task, None), {BARE: []} | plain, [], max(2, rounds // 4), steps, warmup)
    case = shapes.label(task.shapes())
    added = [row for name in (AGAIN, *journaled) for row in _added(case, name, name, times, promised=name != AGAIN)]
    for name in plain:
        added += _added(case, f"Lightning's, {name}", name, others)
    slowed: list[Row] = []
    for history in ("", "history, "):
        near, far = f"{history}HTTP", f"{history}HTTP + 200 ms"
        slowed += _ratios(case, far, near, times, SLOWED)
    noise = _ratios(case, AGAIN, BARE, times)
    return Section("Logging to MLflow", METHOD, [*added, *slowed, *noise])


def _added(case: str, told: str, name: str, times: Mapping[str, Times], promised: bool = False) -> list[Row]:
    of, bare, promise = times[name], times[BARE], PROMISE if promised else None
    return [
        Row(case, f"{told}, wall", BARE, added_milliseconds(of.wall, bare.wall), promise, "ms"),
        Row(case, f"{told}, CPU", BARE, added_milliseconds(of.cpu, bare.cpu), promise, "ms"),
    ]


def _ratios(case: str, name: str, to: str, times: Mapping[str, Times], promise: float | None = None) -> list[Row]:
    return [
        Row(case, f"{name}, wall", to, ratio(times[name].wall, times[to].wall), promise),
        Row(case, f"{name}, CPU", to, ratio(times[name].cpu, times[to].cpu), promise),
    ]


def _rounds(
    fit: Fit,
    variants: Mapping[str, Sequence[Callback]],
    loggers: Sequence[JournaledMLFlowLogger],
    rounds: int,
    steps: int,
    warmup: int,
) -> dict[str, Times]:
    training, names, shuffle = Paced(fit, variants, clock=time.perf_counter), list(variants), Random(0)
    times = {name: Times() for name in names}
    for round_ in range(-1, rounds):
        shuffle.shuffle(names)
        for name in names:
            count = steps if round_ >= 0 else warmup
            started = time.process_time()
            taken = mean(training.advance(name) for _ in range(count))
            for logger in loggers:
                logger.flush(60)
            if round_ >= 0:
                times[name].wall.append(taken)
                times[name].cpu.append((time.process_time() - started) / count)
    training.stop()
    return times


@contextmanager
def _server(folder: str) -> Iterator[str]:
    store = f"sqlite:///{Path(folder) / 'server.db'}"
    prepare_store(store)
    port = free_port(5800 + os.getpid() % 1000)  # two benchmarks at a time must not both find the same one free
    server = start_server(store, port)
    try:
        wait_until_ready(server, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_server(server)


@contextmanager
def _slowed(uri: str) -> Iterator[str]:
    command = [sys.executable, "-m", "experiments.bench.proxy", uri.rpartition(":")[2], str(DELAY)]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None
        yield proxy.stdout.readline().strip()
    finally:
        proxy.kill()
        proxy.wait()
