"""A whole training step in a Trainer, with a callback and without."""

from __future__ import annotations

import tempfile
from statistics import median

from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from experiments.bench import models, shapes
from experiments.bench.fitting import fitting
from experiments.bench.models import Task
from experiments.bench.pacing import Paced, alternate
from experiments.bench.rivals import LogGradNorms, WandbWatch, installed, zclip
from experiments.bench.table import Row, Section
from experiments.bench.timing import ROUND, WARMUP, ratio
from grad_callbacks import GradientGuard, GradientMonitor

BARE = "the bare step"
AGAIN = "the bare step, second copy"
MONITOR = "`GradientMonitor()`"
GUARD = "`GradientGuard()`"
LOGGED = "`grad_norm` + `log_dict` each step"
WATCH = "`wandb.watch(log_freq=1)`"
ZCLIP = "ZClip's callback"
PROMISES = {MONITOR: 1.02, GUARD: 1.02}
LEAST_STEP = 0.020  # seconds; what is promised is promised for steps that take at least so long

METHOD = f"""Random data; `CSVLogger` with Lightning's default of a record every 50 steps. All that happens in a step is
timed: loop, data, forward, backward, optimizer, callbacks. The bare step, {MONITOR} and
{GUARD} take turns in one training, step by step. The others leave traces in their Trainer and model, so each
has its own, and *{AGAIN}* tells what that alone does: copies of a model differ in speed. {ROUND} steps of
each are a round; the first {WARMUP} do not count. The promise is for steps of {1000 * LEAST_STEP:.0f} ms or
more. Batches are small (8 images of 64×64, 256 tokens, 64 rows): larger ones make every ratio smaller."""


def run(quick: bool) -> Section:
    """Train all tasks with all variants."""
    tasks = [(models.convolutional(), 2), (models.transformer(), 4), (models.deep_mlp(), 3)]
    if quick:
        tasks = [(models.convolutional(2, 16, (1, 1), 8), 2)]
    rows = []
    for task, rounds in tasks:
        rows += _compare(task, rounds, steps=2 if quick else ROUND, warmup=1 if quick else WARMUP)
    return Section("A training step with the callbacks", METHOD, rows)


def _compare(task: Task, rounds: int, steps: int, warmup: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:

        def training(name: str, variants: dict[str, list[Callback]]) -> Paced:
            return Paced(fitting(task, CSVLogger(folder, name)), variants)

        trainings = [
            training("own", {BARE: [], MONITOR: [GradientMonitor()], GUARD: [GradientGuard()]}),
            training("bare", {AGAIN: []}),
            training("logged", {LOGGED: [LogGradNorms()]}),
        ]
        if installed("wandb"):
            trainings.append(training("wandb", {WATCH: [WandbWatch(folder)]}))
        if installed("zclip"):
            trainings.append(training("zclip", {ZCLIP: [zclip()]}))
        times = alternate(trainings, rounds, steps, warmup)
    bare = median(times[BARE])
    case = f"{task.name}, {shapes.label(task.shapes())}, bare step {1000 * bare:.0f} ms"
    return [
        Row(
            case,
            name,
            BARE,
            ratio(times[name], times[BARE]) if name in times else None,
            PROMISES.get(name) if bare >= LEAST_STEP else None,
        )
        for name in (MONITOR, GUARD, AGAIN, LOGGED, WATCH, ZCLIP)
    ]
