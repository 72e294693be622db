"""What a healthy run pays for its guard: time for each step, snapshots included, and memory."""

from __future__ import annotations

import tempfile
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.optim import Optimizer

from experiments.bench import models, shapes
from experiments.bench.fitting import fitting
from experiments.bench.models import Task
from experiments.bench.pacing import Paced, alternate
from experiments.bench.table import Row, Section
from experiments.bench.timing import ROUND, WARMUP, ratio
from experiments.bench.training import BARE, GUARD, LEAST_STEP, PROMISES
from grad_callbacks import GradientGuard

FLOOR = "one norm per gradient"
METHOD = f"""As above, but only the bare step and {GUARD} take turns, in more rounds, with a step in which
`_foreach_norm` reads every gradient once and nothing is done with the norms: the least that whatever looks at each
gradient pays. That does not grow with the batch, as the step does: the GPT is trained with two of them. A guard takes a
snapshot every 25 readings while all is calm, so that each round of {ROUND} holds one.
*Memory* is what its snapshots take at the end of a run, four at most; on a GPU in pinned memory of the host. The
promise is for steps of {1000 * LEAST_STEP:.0f} ms or more. An intervention in one of these runs, which are healthy,
would end the benchmark."""


class ReadOnce(Callback):
    """Takes a norm of each gradient before each step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take the norms, and throw them away."""
        torch._foreach_norm([p.grad for p in pl_module.parameters() if p.grad is not None], 2)


class Weigh(Callback):
    """Notes what a guard holds in memory when the training ends; stands before the guard in the Trainer."""

    def __init__(self, guard: GradientGuard) -> None:
        self.nbytes = 0
        self._guard = guard

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Weigh, and make sure that the run was healthy."""
        self.nbytes = self._guard.nbytes
        if self._guard.interventions:
            raise RuntimeError(f"this run should be healthy: {self._guard.interventions[0]}")


def run(quick: bool) -> Section:
    """Train all tasks with the guard and without."""
    tasks = [
        (models.convolutional(), 4),
        (models.transformer(), 8),
        (models.transformer(sequences=16), 4),
        (models.deep_mlp(), 5),
    ]
    if quick:
        tasks = [(models.convolutional(2, 16, (1, 1), 8), 2)]
    rows = []
    for task, rounds in tasks:
        rows += _compare(task, rounds, steps=2 if quick else ROUND, warmup=1 if quick else 4 * WARMUP)
    return Section("A healthy run under the guard", METHOD, rows)


def _compare(task: Task, rounds: int, steps: int, warmup: int) -> list[Row]:
    guard = GradientGuard()
    scale = Weigh(guard)
    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, list[Callback]] = {BARE: [scale], GUARD: [guard], FLOOR: [ReadOnce()]}
        times = alternate([Paced(fitting(task, CSVLogger(folder)), variants)], rounds, steps, warmup)
    bare = median(times[BARE])
    case = f"{task.name}, {shapes.label(task.shapes())}, batch of {len(task.batch[0])}, bare step {1000 * bare:.0f} ms"
    promise = PROMISES[GUARD] if bare >= LEAST_STEP else None
    memory = f"memory {scale.nbytes / 2**20:.1f} MiB"
    return [
        Row(f"{case}, {memory}", GUARD, BARE, ratio(times[GUARD], times[BARE]), promise),
        Row(case, FLOOR, BARE, ratio(times[FLOOR], times[BARE])),
    ]
