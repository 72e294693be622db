"""Repairs the runs of :mod:`tests.support.repairs` on two processes that train replicas, and writes down the results.

A script of its own: `python -m tests.support.distributed.repairs FOLDER` imports torch once and forks for each run.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing import start_processes

from grad_callbacks import GradientGuard
from tests.support.distributed.leaving import leave
from tests.support.distributed.worker import free_port
from tests.support.helpers import trainer
from tests.support.repairs import REPAIRS, data
from tests.support.trial_faults import RaisedRate

WORLD = 2


def train(name: str, folder: Path) -> None:
    """Train one of the replicas and write down what its guard did and its weights."""
    run = REPAIRS["clip" if name == "trial" else name]
    guard, module, faults = run.guard(), run.module(), []
    if name == "trial":
        guard = GradientGuard({"exploding": ["ClipValue", "Rollback"]}, trial={"steps": 5})
        module.factors, faults = {}, [RaisedRate(300.0)]
    strategy = DDPStrategy(process_group_backend="gloo")
    fit = trainer(guard, *faults, devices=WORLD, strategy=strategy, use_distributed_sampler=False)
    fit.fit(module, data())
    seen = {
        "interventions": [made.to_dict() for made in guard.interventions],
        "trials": [result.to_dict() for result in guard.trials],
        "weights": module.state_dict(),
    }
    torch.save(seen, folder / f"{name}.{os.environ['RANK']}.pt")


def _process(rank: int, name: str, folder: Path, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), NODE_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    train(name, folder)
    leave()


def main() -> None:
    """Train each run."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    for name in [*REPAIRS, "trial"]:
        arguments: tuple[Any, ...] = (name, Path(sys.argv[1]), free_port())
        start_processes(_process, arguments, nprocs=WORLD, start_method="fork")


if __name__ == "__main__":
    main()
