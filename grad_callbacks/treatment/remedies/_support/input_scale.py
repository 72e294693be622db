"""The usual size of the tensors in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.treatment.step.snapshots import LIMITS as SNAPSHOTS


@dataclass(frozen=True)
class InputSizesThresholds(Thresholds):
    """The numbers of :class:`InputSizes`."""

    looks: int = threshold(
        5,
        "latest looks that are kept: the median is right if two of them were wrong",
        unit="looks",
        source="not measured",
    )


LIMITS = InputSizesThresholds()


class InputSizes:
    """The sizes of a batch's floating-point tensors in the latest looks, and those of the batch before.

    They stay on the device until they are read: a look does not wait for the device.
    """

    def __init__(self) -> None:
        self._looks: list[list[Tensor]] = []
        self._two: list[Any] = [None, None]  # the latest batches, or their sizes: the size of a size is itself

    def note(self, batch: Any, reading: int, is_well: bool) -> None:
        """Keep the batch of a reading, and look at it if all is well and it is time: at 1, 2, 4, 8, then every 25th."""
        self._two = [None if is_well else self._two[1], batch]
        if is_well and (
            reading % SNAPSHOTS.interval == 0 or (reading < SNAPSHOTS.interval and reading.bit_count() == 1)
        ):
            self._looks = [*self._looks, _sizes(batch)][-LIMITS.looks :]

    def until_next_look(self, reading: int) -> int:
        """Return how many readings there are to the next look, that one included; 0 among the first readings.

        Args:
            reading: The number of the latest.
        """
        return 0 if reading < SNAPSHOTS.interval else SNAPSHOTS.interval - reading % SNAPSHOTS.interval

    def before(self) -> list[float]:
        """The sizes in the batch before the present one; none while all is well."""
        return [float(size) for size in _sizes(self._two[0])]

    def usual(self, count: int) -> list[float] | None:
        """The median size of each of ``count`` tensors; None if too little is known, or other batches were seen."""
        if not self._looks or any(len(look) != count for look in self._looks):
            return None
        return [median_low(map(float, sizes)) for sizes in zip(*self._looks, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        looks = {"looks": self._looks, "two": [_sizes(batch) for batch in self._two]}
        return {name: [[float(size) for size in sizes] for sizes in known] for name, known in looks.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._looks, self._two = (
            [[torch.tensor(size, dtype=torch.float64) for size in sizes] for sizes in state[name]]
            for name in ("looks", "two")
        )

    def __getstate__(self) -> dict[str, Any]:
        """Copy no batches."""
        return {**self.__dict__, "_two": [_sizes(batch) for batch in self._two]}


def _sizes(batch: Any) -> list[Tensor]:
    return [size_of(tensor) for tensor in float_tensors(batch)]


def float_tensors(batch: Any) -> list[Tensor]:
    """The real floating-point tensors of a batch, those that are not empty."""
    return [t for t in tensors_in(batch) if is_known(t)]


def is_known(value: Any) -> bool:
    """True for a tensor that has a size."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return is_float and value.layout is torch.strided and value.numel() > 0


def size_of(tensor: Tensor) -> Tensor:
    """The squared mean root of a tensor's entries, a scalar on its device: a few outliers hardly change it."""
    wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return wide.abs().sqrt().mean().square()
