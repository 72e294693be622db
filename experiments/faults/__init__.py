"""Faults: callbacks that break a run at a given step."""

from experiments.faults.base import Fault
from experiments.faults.batches import BadTarget, BadValue, CorruptBatch, ScaledInputs
from experiments.faults.operations import BrokenLoss, BrokenModule, log_of_zero, mean_of_nothing, root_of_zero
from experiments.faults.rate import RaisedRate

__all__ = [
    "BadTarget",
    "BadValue",
    "BrokenLoss",
    "BrokenModule",
    "CorruptBatch",
    "Fault",
    "RaisedRate",
    "ScaledInputs",
    "log_of_zero",
    "mean_of_nothing",
    "root_of_zero",
]
