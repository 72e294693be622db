"""Faults: callbacks that break a run at a given step."""

from experiments.faults.base import Fault
from experiments.faults.batches import BadTarget, BadValue, CorruptBatch, ScaledInputs
from experiments.faults.operations import BrokenLoss, BrokenModule, log_of_zero, mean_of_nothing, root_of_zero
from experiments.faults.rate import RaisedRate
from experiments.faults.scaled import OutlierLoss, ScaledWeights
from experiments.faults.tokens import RepeatedToken, ShiftedTargets, ShuffledTokens

__all__ = [
    "BadTarget",
    "BadValue",
    "BrokenLoss",
    "BrokenModule",
    "CorruptBatch",
    "Fault",
    "OutlierLoss",
    "RaisedRate",
    "RepeatedToken",
    "ScaledInputs",
    "ScaledWeights",
    "ShiftedTargets",
    "ShuffledTokens",
    "log_of_zero",
    "mean_of_nothing",
    "root_of_zero",
]
