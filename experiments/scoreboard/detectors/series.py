"""What published rules look at, as series over the steps of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.corpus import Recording, Segment
from grad_callbacks import Reading

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One step of one optimizer.

    Attributes:
        reading: The reading.
        mean_absolute: Mean absolute entry of each parameter's gradient, shape ``(parameters,)``; NaN without one.
        zero_share: Share of zeros of each, NaN where it was not counted.
        middle_range: Distance from the 5th to the 95th percentile of each, NaN where it was not measured.
    """

    reading: Reading
    mean_absolute: FloatArray
    zero_share: FloatArray
    middle_range: FloatArray

    @property
    def weights(self) -> NDArray[np.bool_]:
        """True for each weight with a gradient."""
        return self.reading.layers.is_weight & self.reading.present


def steps(recording: Recording) -> Iterator[list[Step]]:
    """Yield the steps of each optimizer.

    Those at which a loss scaler found an overflow are left out: it will skip them, and no published rule is meant to
    see their gradients. An optimizer whose layers change in mid-run counts as another one from there on.
    """
    for stream in recording.streams.values():
        for segment in stream.segments:
            yield [step for step in _steps(segment) if not step.reading.overflow]


def _steps(segment: Segment) -> Iterator[Step]:
    none = np.full((len(segment.readings), len(segment.layers.shapes)), np.nan)
    columns = [segment.beside.get(name, none) for name in ("mean_absolute", "zero_share", "middle_range")]
    for reading, *measured in zip(segment.readings, *columns, strict=True):
        yield Step(reading, *measured)


def norms(recording: Recording) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield for each optimizer the steps and the global norms, those of a loss scaler's overflows left out."""
    for stream in recording.streams.values():
        readings = [reading for reading in stream.readings if not reading.overflow]
        yield (
            np.array([reading.step for reading in readings], dtype=np.int64),
            np.array([reading.norm for reading in readings], dtype=np.float64),
        )


def activation_shares(recording: Recording, name: str) -> Iterator[tuple[int, FloatArray]]:
    """Yield the steps at which activation modules were looked at, and the share of each (see the recorder)."""
    shares = recording.activation.shares.get(name)
    if shares is not None:
        yield from zip(recording.activation.steps.tolist(), shares, strict=True)
