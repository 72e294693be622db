"""Trains under every way of sharding, with processes and gloo, and writes down what each process saw.

A script of its own: `python -m tests.support.distributed.worker FOLDER CASE...` imports torch once and forks for each
case, which takes a second or two; the tests read what it has written.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader, DistributedSampler

from experiments.bench.rules import FromTheStart
from grad_callbacks import ClipNorm, GradientGuard, Reading, Rule, SkipStep
from tests.support.distributed.leaving import leave
from tests.support.distributed.sharding import BATCH, CASES, MAX_NORM, Module, samples

TIMEOUT = 60.0  # seconds for a case, which takes one or two


class Losses(Rule):
    """A rule that alerts of nothing and notes the losses; engines copy rules, and this one stays itself."""

    kind: str = "exploding"
    active = False

    def __init__(self) -> None:
        self.seen: list[float] = []

    def judge(self, reading: Reading) -> None:
        self.seen.append(reading.loss)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Losses:
        return self


class Guard(GradientGuard):
    """Clips from the first step, skips what is not finite, and counts the collectives of each step."""

    def __init__(self) -> None:
        self.losses = Losses()
        super().__init__(
            prescription={"exploding": [ClipNorm(MAX_NORM)], "nonfinite": [SkipStep()]},
            rules=[FromTheStart(), "NonFinite", self.losses],
        )
        self.collectives: list[int] = []

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        with CommDebugMode() as communication:
            super().on_before_optimizer_step(*arguments)
        self.collectives.append(communication.get_total_counts())


class Witness(Callback):
    """Sees whether a step has changed this process's weights or optimizer states."""

    def __init__(self) -> None:
        self.changed: list[bool] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._before = self._state(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        after = self._state(trainer)
        self.changed.append(not all(torch.equal(a, b) for a, b in zip(self._before, after, strict=True)))

    def _state(self, trainer: Trainer) -> list[Tensor]:
        [used] = trainer.optimizers
        weights = [parameter.detach() for group in used.param_groups for parameter in group["params"]]
        states = [value for state in used.state.values() for value in state.values() if isinstance(value, Tensor)]
        return [copy.deepcopy(getattr(tensor, "_local_tensor", tensor)) for tensor in weights + states]


def train(case: str, folder: Path) -> None:
    """Run one case on this process and write what it saw."""
    strategy, shard, name, world, tensor = CASES[case]
    replicas, rank = world // tensor, int(os.environ["RANK"])
    guard, witness = Guard(), Witness()
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=strategy(),
        callbacks=[guard, witness],
        max_epochs=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = samples(world)
    sampler = DistributedSampler(data, num_replicas=replicas, rank=rank // tensor, shuffle=False)
    trainer.fit(Module(shard, name), DataLoader(data, batch_size=2 * BATCH // replicas, sampler=sampler))
    history = guard.history()
    seen = {
        "alerts": [alert.to_dict() for alert in guard.alerts],
        "interventions": [made.to_dict() for made in guard.interventions],
        "layers": list(history.loc[history["step"] == 0, "layer"]),
        "norms": [list(rows["norm"]) for _, rows in history.groupby("step")],
        "weight_norms": [list(rows["weight_norm"]) for _, rows in history.groupby("step")],
        "update_ratios": [list(rows["update_ratio"]) for _, rows in history.groupby("step")],
        "losses": guard.losses.seen,
        "collectives": guard.collectives,
        "changed": witness.changed,
    }
    torch.save(seen, folder / f"{case}.{rank}.pt")


def _process(rank: int, case: str, folder: Path, world: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), NODE_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    train(case, folder)
    leave()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Run the cases that are named on the command line."""
    folder, *cases = sys.argv[1:]
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for case in cases:
        try:
            _run(case, Path(folder))
        except Exception as error:  # the other cases go on; the test of this one shows it
            Path(folder, f"{case}.error").write_text(str(error))


def _run(case: str, folder: Path) -> None:
    world = CASES[case][3]
    arguments = (case, folder, world, free_port())
    processes = start_processes(_process, arguments, nprocs=world, join=False, start_method="fork")
    deadline = time.monotonic() + TIMEOUT
    while not processes.join(timeout=1.0):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            raise TimeoutError(f"{case} hangs: some process waits for another")


if __name__ == "__main__":
    main()
