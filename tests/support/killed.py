"""Trains, is killed with SIGKILL, and goes on from the last checkpoint.

A script of its own: `python -m tests.support.killed FOLDER` imports torch once and forks for each training.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.support.helpers import trainer
from tests.support.repairs import REPAIRS, data

KILLED_AT = (30, 41, 55)  # back to before the trouble, to the step in which it began, to after all of it
EVERY = 13  # steps between checkpoints


class Killer(Callback):
    """Kills the process at the start of a step: nothing is flushed, nobody is told."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, name: str, kill: int | None, checkpoint: Path | None, result: str) -> None:
    """Train, from a checkpoint if there is one, and write down what the guard did and the weights."""
    torch.set_num_threads(1)
    guard, module = REPAIRS[name].guard(), REPAIRS[name].module()
    saver = ModelCheckpoint(folder / f"{name}-{kill}", every_n_train_steps=EVERY)
    callbacks = [guard, Killer(kill), *([] if kill is None else [saver])]
    run = trainer(*callbacks, enable_checkpointing=kill is not None)
    run.fit(module, data(), ckpt_path=checkpoint, weights_only=True)
    seen = {
        "interventions": [made.to_dict() for made in guard.interventions],
        "alerts": [alert.to_dict() for alert in guard.alerts],
        "weights": module.state_dict(),
    }
    torch.save(seen, folder / result)


def main() -> None:
    """Train every run without a stop, and with one at each step."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    for name in REPAIRS:
        _fork(folder, name, None, None, f"{name}.pt")
        for kill in KILLED_AT:
            code = _fork(folder, name, kill, None, "never.pt")
            assert code == -signal.SIGKILL, code
            [checkpoint] = (folder / f"{name}-{kill}").glob("*.ckpt")
            _fork(folder, name, None, checkpoint, f"{name}-{kill}.pt")


def _fork(*arguments: Any) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


if __name__ == "__main__":
    main()
