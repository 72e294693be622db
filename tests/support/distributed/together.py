"""Two processes that work together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

from torch.multiprocessing import start_processes

multiprocessing.set_forkserver_preload(["lightning.pytorch"])  # once: it takes longer than what is tested


def run_together(work: Callable[..., None], *arguments: object) -> None:
    """Run ``work(rank, *arguments)`` in two processes; fail as it fails."""
    start_processes(work, arguments, nprocs=2, start_method="forkserver")
