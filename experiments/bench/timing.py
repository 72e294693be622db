"""Timing that can be trusted on a busy machine: variants in turns, and ratios within each turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import TypeVar

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# The engine measures weights and their motion in each of its first 20 readings and in every 25th: the first are left
# out of the timing, and a round holds exactly one of the others.
WARMUP, ROUND = 20, 25

Call = Callable[[], object]
V = TypeVar("V")


@dataclass(frozen=True)
class Spread:
    """Median and range over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value per round."""
        return cls(median(values), min(values), max(values))


def now() -> float:
    """Return seconds of the processor time of this thread, which other programs do not lengthen.

    With a GPU it is the time on the wall, when the kernels that were launched are done.
    """
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


def seconds(call: Call) -> float:
    """Return how long ``call`` takes."""
    started = now()
    call()
    return now() - started


def interleave(
    variants: Mapping[str, V],
    timer: Callable[[V], float],
    rounds: int,
    steps: int,
    warmup: int,
    prepare: Call = lambda: None,
) -> dict[str, list[float]]:
    """Time variants in turns, so that what disturbs one disturbs all.

    Args:
        variants: What is to be timed, by name.
        timer: Calls a variant and returns its seconds.
        rounds: Number of rounds.
        steps: Calls of each variant in a round, in an order that is drawn anew for each call.
        warmup: Calls of each variant before the first round.
        prepare: Called before each timed call.

    Returns:
        For each variant the seconds per call, one number per round.
    """
    names = list(variants)
    shuffle = Random(0)
    for _ in range(warmup):
        for name in names:
            prepare()
            timer(variants[name])
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        with _without_collection():
            total = dict.fromkeys(names, 0.0)
            for _ in range(steps):
                shuffle.shuffle(names)  # each is to come after each: caches remember who was there before
                for name in names:
                    prepare()
                    total[name] += timer(variants[name])
        for name in variants:
            times[name].append(total[name] / steps)
    return times


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python's garbage collector from charging one variant with what another has left behind."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def ratio(of: Sequence[float], to: Sequence[float]) -> Spread:
    """Divide round by round."""
    return Spread.of([a / b for a, b in zip(of, to, strict=True)])


def added_milliseconds(of: Sequence[float], to: Sequence[float]) -> Spread:
    """Subtract round by round."""
    return Spread.of([1000 * (a - b) for a, b in zip(of, to, strict=True)])
