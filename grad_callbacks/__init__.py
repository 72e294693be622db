"""See and heal the gradients of a neural network while it trains."""

from grad_callbacks.alerts import Alert
from grad_callbacks.callbacks import GradientGuard, GradientMonitor
from grad_callbacks.interventions import Intervention
from grad_callbacks.prescription import Prescription
from grad_callbacks.remedies import ClipNorm, ClipValue, OptimizerStep, ReduceLR, Remedy, SkipStep
from grad_callbacks.rules import Exploding, NonFinite, Rule, Vanishing
from grad_callbacks.version import __version__

__all__ = [
    "Alert",
    "ClipNorm",
    "ClipValue",
    "Exploding",
    "GradientGuard",
    "GradientMonitor",
    "Intervention",
    "NonFinite",
    "OptimizerStep",
    "Prescription",
    "ReduceLR",
    "Remedy",
    "Rule",
    "SkipStep",
    "Vanishing",
    "__version__",
]
