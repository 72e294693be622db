"""Schedules of the learning rate. Each is made with the optimizer and the number of all its steps."""

from experiments.schedules.annealing import cosine, cosine_restarts, exponential, steps
from experiments.schedules.cycles import cyclic, one_cycle
from experiments.schedules.warmup import inverse_root, warmup, warmup_cosine

__all__ = [
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_root",
    "one_cycle",
    "steps",
    "warmup",
    "warmup_cosine",
]
