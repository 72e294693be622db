"""A Trainer that does nothing but train, record and call."""

from __future__ import annotations

from functools import partial

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from experiments.bench.models import Task
from experiments.bench.pacing import Fit
from experiments.bench.timing import DEVICE


def fitting(task: Task, logger: Logger | None, log_every_n_steps: int = 50) -> Fit:
    """Return what trains ``task`` endlessly with given callbacks."""
    return partial(_fit, task, logger, log_every_n_steps)


def _fit(task: Task, logger: Logger | None, log_every_n_steps: int, callbacks: list[Callback]) -> None:
    trainer = Trainer(
        accelerator="gpu" if DEVICE.type == "cuda" else "cpu",
        devices=1,
        callbacks=callbacks,
        logger=logger or False,
        max_epochs=1,
        log_every_n_steps=log_every_n_steps,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task.module(), task.batches())
