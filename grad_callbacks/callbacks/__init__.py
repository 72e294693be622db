"""The callbacks: the only place that knows Lightning's hooks."""

from grad_callbacks.callbacks.guard import GradientGuard
from grad_callbacks.callbacks.monitor import GradientMonitor

__all__ = ["GradientGuard", "GradientMonitor"]
