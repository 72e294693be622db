"""See and heal the gradients of a neural network while it trains.

Everything public is imported from here. A name is loaded when it is first used: ``from grad_callbacks import Engine``
imports neither Lightning nor MLflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grad_callbacks._utils.version import __version__

if TYPE_CHECKING:
    from grad_callbacks.callbacks.guard import GradientGuard
    from grad_callbacks.callbacks.monitor import GradientMonitor
    from grad_callbacks.detection.diagnosis.finding import CAUSES
    from grad_callbacks.detection.rules import Exploding, NonFinite, Outlier, Rule, SaturatedAttention, Vanishing
    from grad_callbacks.engine.engine import Engine
    from grad_callbacks.engine.step_context import StepContext
    from grad_callbacks.events import Alert, Evidence, Intervention, TrialResult
    from grad_callbacks.measurement.batch import Batch
    from grad_callbacks.measurement.reading import Reading
    from grad_callbacks.reporting.record import Record
    from grad_callbacks.reporting.step_result import StepResult
    from grad_callbacks.treatment.prescription import Prescription
    from grad_callbacks.treatment.remedies import (
        AGC,
        AdaptiveClip,
        AdaptiveStep,
        ClipNorm,
        ClipValue,
        FullPrecision,
        MaskUndefined,
        ReduceLR,
        Reinitialize,
        Remedy,
        RescaleInputs,
        Rollback,
        SkipStep,
        StandardizeInputs,
        Warmup,
    )
    from grad_callbacks.treatment.step import OptimizerStep, RunState
    from grad_callbacks.treatment.trial import Trial

_HOMES = {
    "callbacks.guard": ("GradientGuard",),
    "callbacks.monitor": ("GradientMonitor",),
    "detection.diagnosis.finding": ("CAUSES",),
    "detection.rules": ("Exploding", "NonFinite", "Outlier", "Rule", "SaturatedAttention", "Vanishing"),
    "engine.engine": ("Engine",),
    "engine.step_context": ("StepContext",),
    "events": ("Alert", "Evidence", "Intervention", "TrialResult"),
    "measurement.batch": ("Batch",),
    "measurement.reading": ("Reading",),
    "reporting.record": ("Record",),
    "reporting.step_result": ("StepResult",),
    "treatment.prescription": ("Prescription",),
    "treatment.remedies": (
        "AGC",
        "AdaptiveClip",
        "AdaptiveStep",
        "ClipNorm",
        "ClipValue",
        "FullPrecision",
        "MaskUndefined",
        "ReduceLR",
        "Reinitialize",
        "Remedy",
        "RescaleInputs",
        "Rollback",
        "SkipStep",
        "StandardizeInputs",
        "Warmup",
    ),
    "treatment.step": ("OptimizerStep", "RunState"),
    "treatment.trial": ("Trial",),
}
_RENAMED = {"Outlook": "StepResult", "Scene": "RunState", "Surroundings": "StepContext"}  # until 0.3
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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
    "Evidence",
    "Exploding",
    "FullPrecision",
    "GradientGuard",
    "GradientMonitor",
    "Intervention",
    "MaskUndefined",
    "NonFinite",
    "OptimizerStep",
    "Outlier",
    "Prescription",
    "Reading",
    "Record",
    "ReduceLR",
    "Reinitialize",
    "Remedy",
    "RescaleInputs",
    "Rollback",
    "Rule",
    "RunState",
    "SaturatedAttention",
    "SkipStep",
    "StandardizeInputs",
    "StepContext",
    "StepResult",
    "Trial",
    "TrialResult",
    "Vanishing",
    "Warmup",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from warnings import warn

        new = _RENAMED[name]
        warn(f"grad_callbacks.{name} is now called {new}", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
