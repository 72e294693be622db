"""Copies numbers between host and device without making the host wait."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def arrives_later(device: torch.device) -> bool:
    """True for a device that runs asynchronously, so that reading a number means waiting for it."""
    return device.type == "cuda"


def to_device(numbers: Sequence[float], device: torch.device) -> Tensor:
    """Return ``numbers`` as a float64 tensor on ``device``."""
    tensor = torch.tensor(numbers, dtype=torch.float64)
    if device.type == "cuda":  # from ordinary memory the copy would make the host wait
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


class DeviceTransfer:
    """Copies numbers to the host without making it wait: one copy into pinned memory, followed by an event.

    Numbers that are on the host already are not copied: nothing may write to them before :meth:`wait`.

    Args:
        parts: Float64 tensors on one device, of any shape.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts
        self._arrived: torch.cuda.Event | None = None
        if parts[0].device.type == "cuda":
            numbers = torch.cat([part.reshape(-1) for part in parts])
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(numbers.device))
            self._sizes = [part.numel() for part in parts]
            self._parts = ()

    def wait(self) -> list[NDArray[np.float64]]:
        """Return the parts, flat. Waits for these numbers only, not for work queued after them."""
        if self._arrived is None:
            return [part.numpy().reshape(-1) for part in self._parts]
        self._arrived.synchronize()
        numbers, ends = self._host.numpy(), accumulate(self._sizes)
        return [numbers[end - size : end] for size, end in zip(self._sizes, ends, strict=True)]
