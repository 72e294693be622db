"""Processes with one thread each, which end when the one that made them does."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TypeVar

import torch

CHATTERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "grad_callbacks", "mlflow", "alembic")

Job = TypeVar("Job")


def work_through(
    work: Callable[[Job, Path], object],
    jobs: Sequence[Job],
    workers: int,
    conf: Path,
    on_done: Callable[[Job], object] | None = None,
) -> None:
    """Do a work for each job, over several processes with one thread each.

    Args:
        work: Is called with a job and ``conf``; a function of a module.
        jobs: What is to be done.
        workers: Number of processes; 1 is this process.
        conf: The folder of the configs.
        on_done: Called after each job.

    Raises:
        OSError: If a process was killed.
    """
    if workers == 1:
        torch.set_num_threads(1)
        for job in jobs:
            work(job, conf)
            if on_done is not None:
                on_done(job)
        return
    with pool(workers) as processes:
        waiting = {processes.submit(work, job, conf): job for job in jobs}
        try:
            for future in as_completed(waiting):
                future.result()
                if on_done is not None:
                    on_done(waiting[future])
        except BrokenProcessPool:
            raise OSError(
                "a process was killed, perhaps for want of memory: the same command goes on from here"
            ) from None
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


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
