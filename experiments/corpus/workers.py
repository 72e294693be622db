"""Processes with one thread each, which end when the one that made them does."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import torch

CHATTERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "grad_callbacks", "mlflow", "alembic")


def pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes."""
    return ProcessPoolExecutor(workers, get_context("spawn"), _prepare)


def quiet() -> None:
    """Leave the screen to the scoreboard."""
    warnings.filterwarnings("ignore")
    for name in CHATTERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _prepare() -> None:
    torch.set_num_threads(1)
    quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too: what they are at is finished
    Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
