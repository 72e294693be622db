"""Trainings with a real Trainer, run by child processes."""

from __future__ import annotations

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from experiments.reliability.truth import ANY, Entry, metrics, single
from grad_callbacks.tracking import JournaledMLFlowLogger

CHECKPOINT_EVERY = 10  # steps
ARTIFACT_EVERY = 25  # steps
ATTEMPT = 1_000_000  # added to the value by each attempt, so that no two calls log the same


class Logs(Callback):
    """Logs a value in every step, and only then notes in a file that it was logged.

    Args:
        notes: The file's descriptor; a process that is killed leaves it complete.
        attempt: How often the run was continued.
        pause: Seconds that each step takes longer.
    """

    def __init__(self, notes: int, attempt: int, pause: float) -> None:
        self.notes, self.attempt, self.pause = notes, attempt, pause

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log, note, wait."""
        step, logger = trainer.global_step, trainer.logger
        assert isinstance(logger, JournaledMLFlowLogger)
        logger.log_metrics({"value": self.attempt * ATTEMPT + step}, step)
        os.write(self.notes, f"m {self.attempt} {step}\n".encode())
        if step % ARTIFACT_EVERY == 0:
            name = f"texts/{self.attempt}-{step}.txt"
            logger.experiment.log_text(str(logger.run_id), name, name)
            os.write(self.notes, f"a {name}\n".encode())
        time.sleep(self.pause)


def train(
    folder: str, uri: str, steps: int, attempt: int = 0, run_id: str | None = None, pause: float = 0.0, **options: Any
) -> None:
    """Train, from the last checkpoint if there is one, and print ``ended normally``.

    Args:
        folder: Where checkpoints, notes and, unless the options say otherwise, the journals are.
        uri: The tracking address.
        steps: Of the training.
        attempt: How often the run was continued.
        run_id: The run that is continued.
        pause: Seconds that each step takes longer.
        options: More arguments of the logger.
    """
    quiet()
    place = Path(folder)
    options = {"journal_dir": place / "journal", "finalize_timeout": 3.0, "probe_timeout": 3.0} | options
    logger = JournaledMLFlowLogger("trained", "kept", tracking_uri=uri, run_id=run_id, **options)
    notes = os.open(place / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(notes, f"r {logger.run_id}\n".encode())
    saver = ModelCheckpoint(place / "checkpoints", every_n_train_steps=CHECKPOINT_EVERY, save_top_k=1, monitor=None)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        log_every_n_steps=1,
        logger=logger,
        callbacks=[Logs(notes, attempt, pause), saver],
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    checkpoints = sorted((place / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    trainer.fit(BoringModel(), ckpt_path=checkpoints[-1] if checkpoints else None)
    logger.close()
    os.write(1, b"ended normally\n")


def noted(folder: Path) -> list[Entry]:
    """Return what the trainings of a folder have certainly logged."""
    logged = []
    for line in _notes(folder):
        if line[0] == "m":
            logged.append(metrics({"value": int(line[1]) * ATTEMPT + int(line[2])}, int(line[2])))
        elif line[0] == "a":
            logged.append(single("artifact", line[1], line[1]))
        elif len(logged) == 0:
            logged.append(single("artifact", "context/environment.yaml", ANY))
    return logged


def in_flight(folder: Path) -> list[Entry]:
    """Return what may have been logged as well: the calls during which the processes were killed."""
    possible = []
    last: dict[int, int] = {}
    for line in _notes(folder):
        if line[0] == "m":
            last[int(line[1])] = int(line[2])
    for attempt in range(max(last, default=0) + 1):
        # A process that was killed before its first step has no note, and may have begun at any checkpoint.
        steps = [last[attempt] + 1] if attempt in last else range(1, 10_000, 1)
        possible += [metrics({"value": attempt * ATTEMPT + step}, step) for step in steps]
        near = last.get(attempt, 0) + 1
        for step in {near, near - 1}:
            possible.append(single("artifact", f"texts/{attempt}-{step}.txt", f"texts/{attempt}-{step}.txt"))
    return possible


def run_ids(folder: Path) -> list[str]:
    """Return the ids under which the processes have logged."""
    return [line[1] for line in _notes(folder) if line[0] == "r"]


def _notes(folder: Path) -> list[list[str]]:
    path = folder / "notes"
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text.splitlines()]


def quiet() -> None:
    """Let Lightning and MLflow say nothing; what the package says stays."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def write_only(folder: str, uri: str, steps: int) -> None:
    """Log without a Trainer, whose checkpoints a limit of file sizes would end."""
    quiet()
    logger = JournaledMLFlowLogger(
        "trained", "kept", tracking_uri=uri, journal_dir=Path(folder) / "journal", finalize_timeout=3, probe_timeout=3
    )
    logger.log_hyperparams({"lr": 0.1})
    for step in range(steps):
        logger.log_metrics({"value": step}, step)
    logger.finalize("success")
    logger.close()
    os.write(1, b"ended normally\n")
