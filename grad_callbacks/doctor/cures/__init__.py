"""Cures: one change of a training a file."""

from __future__ import annotations

from grad_callbacks.doctor.cures.activation import Activation
from grad_callbacks.doctor.cures.base import Cure, refused
from grad_callbacks.doctor.cures.clip import Clip
from grad_callbacks.doctor.cures.epsilon import LARGER, SMALLER, Epsilon
from grad_callbacks.doctor.cures.guard import Guard
from grad_callbacks.doctor.cures.initialisation import Initialisation
from grad_callbacks.doctor.cures.inputs import StandardInputs
from grad_callbacks.doctor.cures.logits import Logits
from grad_callbacks.doctor.cures.normalisation import Normalisation
from grad_callbacks.doctor.cures.precision import FullPrecision
from grad_callbacks.doctor.cures.rate import LearningRate
from grad_callbacks.doctor.cures.residual import Residual
from grad_callbacks.doctor.cures.warm_up import WarmUp

__all__ = [
    "LARGER",
    "SMALLER",
    "Activation",
    "Clip",
    "Cure",
    "Epsilon",
    "FullPrecision",
    "Guard",
    "Initialisation",
    "LearningRate",
    "Logits",
    "Normalisation",
    "Residual",
    "StandardInputs",
    "WarmUp",
    "refused",
]
