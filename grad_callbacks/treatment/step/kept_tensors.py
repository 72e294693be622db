"""Copies of tensors: in memory, or in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import IO

import torch
from torch import Tensor

from grad_callbacks.treatment.step.packing import PLAIN_TENSORS, local_part


class KeptTensor:
    """A copy of a tensor.

    Args:
        copied: The copy, or the function that reads it from a file.
        nbytes: Bytes that it takes in memory; 0 in a file.
    """

    def __init__(self, copied: Tensor | Callable[[], Tensor], nbytes: int) -> None:
        self._copied = copied
        self.nbytes = nbytes

    def get(self) -> Tensor:
        """Return the copy; it must not be changed."""
        return self._copied if isinstance(self._copied, Tensor) else self._copied()

    def is_equal(self, tensor: Tensor) -> bool:
        """True if it is in memory of the CPU, and equal to ``tensor`` to the bit."""
        mine = self._copied
        if not isinstance(mine, Tensor) or mine.device.type != "cpu" or tensor.device.type != "cpu":
            return False
        return mine.shape == tensor.shape and mine.dtype == tensor.dtype and torch.equal(mine, tensor)


def in_memory(tensor: Tensor) -> KeptTensor:
    """Copy a tensor: from a GPU to pinned memory of the host, which does not wait for it."""
    value = local_part(tensor)
    if type(value) is Tensor and value.device.type == "cuda":
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return KeptTensor(host.copy_(value, non_blocking=True), size_of([value]))
    copied = value.clone()
    return KeptTensor(copied, copied.numel() * copied.element_size())


def in_file(tensors: Sequence[Tensor]) -> list[KeptTensor]:
    """Write tensors of the CPU into one file without a name, which is gone with the last of them or with the process.

    Raises:
        OSError: If the disk is full, or there is no place for temporary files.
    """
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # lives as long as what reads it
    return [_written(file, local_part(tensor)) if is_plain(tensor) else in_memory(tensor) for tensor in tensors]


def is_plain(tensor: Tensor) -> bool:
    """True for a tensor whose bytes are all that it is; False for quantised ones, sparse ones and the like."""
    local = local_part(tensor)
    is_dense = local.layout == torch.strided and not local.is_quantized
    return type(local) is Tensor and local.device.type == "cpu" and is_dense


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take."""
    parts = (tensor if type(tensor) in PLAIN_TENSORS else local_part(tensor) for tensor in tensors)
    return sum(part.numel() * part.element_size() for part in parts)


def _written(file: IO[bytes], tensor: Tensor) -> KeptTensor:
    offset, shape, dtype = file.tell(), tensor.shape, tensor.dtype
    data = _bytes(tensor.contiguous())
    while data:
        data = data[file.write(data) :]

    def read() -> Tensor:
        result = torch.empty(shape, dtype=dtype)
        file.seek(offset)
        rest = _bytes(result)
        while rest:
            count = file.readinto(rest)  # type: ignore[attr-defined]  # of a file without a buffer
            if not count:
                raise OSError("the file with the snapshots is shorter than what was written to it")
            rest = rest[count:]
        return result

    return KeptTensor(read, 0)


def _bytes(tensor: Tensor) -> memoryview:
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)
