"""What the monitor adds to a step when its metrics go to MLflow."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.loggers import MLFlowLogger

from experiments.bench import models, shapes
from experiments.bench.fitting import fitting
from experiments.bench.pacing import Paced, alternate
from experiments.bench.table import Row, Section
from experiments.bench.timing import WARMUP, added_milliseconds
from grad_callbacks import GradientMonitor
from grad_callbacks.tracking import prepare_store

MONITOR = "`GradientMonitor()`, history of all layers"
BARE = "same logger, no callback"
PROMISE = 3.0  # milliseconds a step

METHOD = f"""`MLFlowLogger` on a fresh SQLite store; the loss is logged with the callback and without, which take turns
in one training, step by step. 50 steps of each are a round, and the first {WARMUP} do not count. The steps are
short on purpose, so that what is added stands out. This is time on the wall: writing to disk counts."""


def run(quick: bool) -> Section:
    """Train with both variants, logging every 50 steps, which is Lightning's default, and in every step."""
    cases = [(5, 1, 2)] if quick else [(75, 50, 8), (75, 1, 8), (500, 50, 4)]
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        prepare_store(store)
        steps, warmup = (2, 1) if quick else (50, WARMUP)
        rows = [_compare(store, layers, every, rounds, steps, warmup) for layers, every, rounds in cases]
    return Section("Recording in MLflow", METHOD, rows)


def _compare(store: str, layers: int, every: int, rounds: int, steps: int, warmup: int) -> Row:
    task = models.deep_mlp(layers=layers, rows=32)
    artifacts = Path(store.removeprefix("sqlite:///")).parent.as_uri()
    logger = MLFlowLogger("bench", tracking_uri=store, artifact_location=artifacts)
    variants: dict[str, list[Callback]] = {BARE: [], MONITOR: [GradientMonitor()]}
    training = Paced(fitting(task, logger, log_every_n_steps=every), variants, clock=time.perf_counter)
    times = alternate([training], rounds, steps, warmup)
    case = f"{shapes.label(task.shapes())}, log_every_n_steps={every}"
    return Row(case, MONITOR, BARE, added_milliseconds(times[MONITOR], times[BARE]), PROMISE, "ms")
