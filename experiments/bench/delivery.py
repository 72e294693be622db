"""What logging to MLflow adds to a step, by way of the journal and without it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from experiments.bench import models, shapes
from experiments.bench.fitting import fitting
from experiments.bench.pacing import Paced
from experiments.bench.table import Row, Section
from experiments.bench.timing import WARMUP, added_milliseconds, ratio
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import JournaledMLFlowLogger, prepare_store
from grad_callbacks.tracking.server import free_port, start_server, stop_server, wait_until_ready

BARE = "nothing logged"
PROMISE = 3.0  # milliseconds a step
SLOWED = 1.02  # of a step, by 200 ms for each request
DELAY = 0.2

METHOD = f"""Ten scalars in every step, to one `JournaledMLFlowLogger` or Lightning's `MLFlowLogger`; *history* is a
`GradientMonitor()` beside it, which keeps every layer's norm. 300 steps with one variant are a round, in one training,
long enough for the journal's thread to send some batches; the rest is sent before the next round, untimed. The first
{WARMUP} steps do not count. This is time on the wall: what the thread takes from the training counts."""


class Ten(Callback):
    """Logs ten scalars in every step."""

    def __init__(self, logger: MLFlowLogger) -> None:
        self.logger = logger
        self._step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log them."""
        self._step += 1
        self.logger.log_metrics({f"scalars/{i}": self._step / (i + 1) for i in range(10)}, step=self._step)


def run(quick: bool) -> Section:
    """Log to an SQLite file, to a server, and to a server that is 200 ms away."""
    steps, warmup, rounds = (2, 1, 2) if quick else (300, WARMUP, 5)
    task = models.deep_mlp(layers=5 if quick else 75, rows=32)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sqlite, http = f"sqlite:///{folder}/local.db", stack.enter_context(_server(folder))
        slow = stack.enter_context(_slowed(http))
        journaled = {
            name: JournaledMLFlowLogger("bench", tracking_uri=uri, journal_dir=f"{folder}/journal", probe_timeout=60)
            for name, uri in (("SQLite", sqlite), ("HTTP", http), ("HTTP + 200 ms", slow), ("history, HTTP", http))
        }
        prepare_store(sqlite)
        plain = {
            f"Lightning's, {name}": MLFlowLogger("bench", tracking_uri=uri)
            for name, uri in (("SQLite", sqlite), ("HTTP", http))
        }
        variants: dict[str, list[Callback]] = {BARE: []}
        variants |= {name: [Ten(logger)] for name, logger in (journaled | plain).items()}
        variants["history, HTTP"].append(GradientMonitor())
        times = _rounds(
            Paced(fitting(task, None), variants, clock=time.perf_counter),
            list(journaled.values()),
            rounds,
            steps,
            warmup,
        )
        for logger in journaled.values():
            logger.close()
    case = shapes.label(task.shapes())
    rows = [
        Row(
            case, name, BARE, added_milliseconds(times[name], times[BARE]), PROMISE if name in journaled else None, "ms"
        )
        for name in variants
        if name != BARE
    ]
    slowed = ratio(times["HTTP + 200 ms"], times["HTTP"])
    return Section("Logging to MLflow", METHOD, [*rows, Row(case, "HTTP + 200 ms", "HTTP", slowed, SLOWED)])


def _rounds(
    training: Paced, loggers: Sequence[JournaledMLFlowLogger], rounds: int, steps: int, warmup: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in training.variants}
    for round_ in range(-1, rounds):
        for name in training.variants:
            taken = [training.advance(name) for _ in range(steps if round_ >= 0 else warmup)]
            if round_ >= 0:
                times[name].append(mean(taken))
            for logger in loggers:
                logger.flush(60)
    training.stop()
    return times


@contextmanager
def _server(folder: str) -> Iterator[str]:
    store = f"sqlite:///{Path(folder) / 'server.db'}"
    prepare_store(store)
    port = free_port(5800)
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
