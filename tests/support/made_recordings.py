"""Recordings made by hand, and what a published rule says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.corpus import Activation, Recording, Segment, Stream
from experiments.scoreboard.detectors import (
    Detector,
)
from tests.support.helpers import reading

DEPTH = 3


def recording(
    norms: Sequence[Sequence[float]] | Sequence[float] = (),
    losses: Sequence[float] | None = None,
    quality: float = 0.0,
    beside: dict[str, Any] | None = None,
    activation: Activation | None = None,
    epoch: int = 10,
    **options: Any,
) -> Recording:
    """A run with the given norms of three layers, or global norms, one a step, and losses that by default stay at 1.

    Args:
        norms: Per step one norm, or one per layer.
        losses: Per step.
        quality: Final.
        beside: Constant measures beside the gradients.
        activation: What was seen of activations.
        epoch: Steps an epoch.
        options: Of each reading.
    """
    options.setdefault("motion", [1e-3] * DEPTH)
    table = [[n / math.sqrt(DEPTH)] * DEPTH if np.isscalar(n) else list(n) for n in norms]
    readings = [reading(row, step=i, **options) for i, row in enumerate(table)]
    losses = [1.0] * len(table) if losses is None else list(losses)
    streams = {}
    if readings:
        known = {"mean_absolute": 1e-3, "zero_share": 0.0, "middle_range": 1.0} | (beside or {})
        shape = (len(readings), DEPTH)
        measured = {name: np.broadcast_to(np.array(value, dtype=np.float64), shape) for name, value in known.items()}
        streams = {0: Stream([Segment(readings[0].layers, readings, measured)])}
    return Recording(
        scenario="made",
        seed=0,
        quality=quality,
        streams=streams,
        alerts=[],
        loss_steps=np.arange(len(losses)),
        losses=np.array(losses, dtype=np.float64),
        epochs=list(range(0, len(losses), epoch)),
        activation=activation or Activation(),
        steps=len(losses),
    )


def fired(detector: Detector, made: Recording) -> list[tuple[int, str]]:
    """Steps and kinds of the alarms."""
    return [(alarm.step, "/".join(alarm.kinds)) for alarm in detector.alarms(made)]


def steady(count: int, level: float = 1.0, noise: float = 0.05) -> list[float]:
    """Norms or losses around a level."""
    return list(level + noise * np.random.default_rng(0).uniform(-1, 1, count))


EITHER = "exploding/nonfinite"
