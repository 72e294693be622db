"""A short training that logs its loss in every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import MLFlowLogger

from experiments.own_time import own_time
from grad_callbacks.tracking import JournaledMLFlowLogger
from tests.support.processes import wait_until

STEPS = 12


class Model(BoringModel):
    """Logs its loss in every step; raises ``error`` in step 3, if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.save_hyperparameters({"lr": 0.1, "api_key": "hush"})
        self.error = error

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.error is not None and self.global_step == 3:
            raise self.error
        output = super().training_step(batch, batch_idx)
        self.log("loss", output["loss"])
        return output


def fit(
    to: MLFlowLogger,
    model: LightningModule | None = None,
    *callbacks: Callback,
    steps: int = STEPS,
    devices: int = 1,
    strategy: str = "auto",
) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        log_every_n_steps=1,
        logger=to,
        callbacks=list(callbacks),
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
    )
    trainer.fit(model or Model())
    return trainer


class Timed(JournaledMLFlowLogger):
    """Measures how many seconds the training spends in it, without those in which other programs have the processor."""

    seconds = 0.0

    @property
    def experiment(self) -> Any:
        with self._watch():
            return super().experiment

    def log_metrics(self, *arguments: Any, **named: Any) -> None:
        with self._watch():
            super().log_metrics(*arguments, **named)

    def finalize(self, status: str = "success") -> None:
        with self._watch():
            super().finalize(status)

    def close(self) -> None:
        with self._watch():
            super().close()

    @contextmanager
    def _watch(self) -> Iterator[None]:
        if getattr(self, "_is_watched", False):
            yield  # a call within a call
            return
        self._is_watched, started = True, own_time()
        try:
            yield
        finally:
            self._is_watched = False
            self.seconds += own_time() - started


class Staged(Callback):
    """Logs an artifact in every tenth step, and from a step on waits for the test before each further one.

    A file ``at-<step>`` in the working folder shows the test how far it is; a file ``go`` lets it continue.
    """

    def __init__(self, pause: int) -> None:
        self.pause = pause

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step - 1
        if step % 10 == 0 and trainer.logger is not None:
            trainer.logger.experiment.log_text(trainer.logger.version, f"step {step}", f"texts/{step}.txt")
        Path(f"at-{step}").touch()
        if step == self.pause:
            wait_until(Path("go").exists, math.inf)  # the test ends this process if it fails


def staged(experiment: str, uri: str, pause: int = 20, steps: int = 40, **arguments: Any) -> None:
    """Train in two stages; prints ``ended normally`` and how many seconds the training has spent in the logger."""
    logger = Timed(experiment, tracking_uri=uri, **arguments)
    fit(logger, None, Staged(pause), steps=steps)
    logger.close()
    print(f"ended normally; {logger.seconds:.2f} seconds in the logger", flush=True)  # noqa: T201
