"""The few scalars that go to the Trainer's loggers."""

from __future__ import annotations

import math

import numpy as np

from grad_callbacks.engine.engine import Engine
from grad_callbacks.reporting.step_result import StepResult


def metrics(result: StepResult, engine: Engine, alerts: int, suffix: str = "") -> dict[str, float]:
    """Return the metrics of a step; values that are not finite are left out, loggers would store them as 1e308.

    Args:
        result: The step.
        engine: The engine that took it.
        alerts: Number of alerts so far.
        suffix: What distinguishes the optimizer's keys.
    """
    reading, ratios = result.reading, engine.gauge.update_ratios.by_layer
    known = ratios[np.isfinite(ratios)]
    values = {
        "norm": reading.norm,
        "norm_clipped": result.norm_clipped,
        "clip_coef": result.coefficient,
        "decay_per_layer": reading.decay_per_layer,
        "update_ratio_min": float(known.min()) if len(known) else math.nan,
        "update_ratio_max": float(known.max()) if len(known) else math.nan,
        "nonfinite_steps": float(engine.nonfinite_steps),
        "alerts": float(alerts),
        "lr_scale": result.lr_scale,
        "lr_effective": result.lr_effective,
    }
    return {f"grad/{name}{suffix}": value for name, value in values.items() if math.isfinite(value)}
