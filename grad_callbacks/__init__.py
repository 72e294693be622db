"""See and heal the gradients of a neural network while it trains."""

from grad_callbacks.alerts import Alert
from grad_callbacks.callbacks import GradientGuard, GradientMonitor
from grad_callbacks.diagnosis import CAUSES, Batch
from grad_callbacks.engine import Engine
from grad_callbacks.gradients import Reading
from grad_callbacks.interventions import Intervention
from grad_callbacks.outlook import Outlook
from grad_callbacks.prescription import Prescription
from grad_callbacks.record import Record
from grad_callbacks.remedies import (
    AGC,
    AdaptiveClip,
    AdaptiveStep,
    ClipNorm,
    ClipValue,
    FloorNorm,
    FullPrecision,
    MaskUndefined,
    OptimizerStep,
    ReduceLR,
    Reinitialize,
    Remedy,
    RescaleInputs,
    Rollback,
    Scene,
    SkipStep,
    Warmup,
)
from grad_callbacks.rules import Exploding, NonFinite, Rule, Vanishing
from grad_callbacks.surroundings import Surroundings
from grad_callbacks.trial import Trial, TrialResult
from grad_callbacks.version import __version__

__all__ = [
    "AGC",
    "CAUSES",
    "AdaptiveClip",
    "AdaptiveStep",
    "Alert",
    "Batch",
    "ClipNorm",
    "ClipValue",
    "Engine",
    "Exploding",
    "FloorNorm",
    "FullPrecision",
    "GradientGuard",
    "GradientMonitor",
    "Intervention",
    "MaskUndefined",
    "NonFinite",
    "OptimizerStep",
    "Outlook",
    "Prescription",
    "Reading",
    "Record",
    "ReduceLR",
    "Reinitialize",
    "Remedy",
    "RescaleInputs",
    "Rollback",
    "Rule",
    "Scene",
    "SkipStep",
    "Surroundings",
    "Trial",
    "TrialResult",
    "Vanishing",
    "Warmup",
    "__version__",
]
