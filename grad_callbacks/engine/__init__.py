"""The engine: measurement, detection, treatment and reporting of one optimizer, without Lightning."""

from grad_callbacks.engine.engine import Engine
from grad_callbacks.engine.step_context import StepContext

__all__ = ["Engine", "StepContext"]
