"""Where snapshots are kept: in memory as far as that is allowed, the rest in temporary files."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement import is_alone
from grad_callbacks.treatment.step.kept_tensors import KeptTensor, in_file, in_memory, is_plain, size_of

log = logging.getLogger("grad_callbacks")


@dataclass(frozen=True)
class SnapshotStoreThresholds(Thresholds):
    """The numbers of :class:`SnapshotStore`."""

    share: float = threshold(
        0.25,
        "share of weights, gradients and optimizer state that snapshots may take in memory, on the CPU",
        unit="1",
        source="the promise of 1.25 times a training's peak, of which these three are less than the whole",
    )
    least: int = threshold(
        64 * 2**20,
        "memory that snapshots may take in any case, and kept buffers: Python, torch and Lightning take 400 MB",
        unit="bytes",
        source="not measured",
    )
    budget: int = threshold(
        4 * 2**30,
        "size of all snapshots together, in memory and in files; on an accelerator in memory of the host",
        unit="bytes",
        source="not measured",
    )
    smallest: int = threshold(
        2**20,
        "smallest number of bytes that may be asked for: `memory=2` is meant as a share",
        unit="bytes",
        source="not measured",
    )
    share_of_disk: float = threshold(
        0.5, "share of what is free for temporary files that they may take", unit="1", source="not measured"
    )


LIMITS = SnapshotStoreThresholds()


def memory_limit(memory: float | None) -> float | None:
    """Check how much memory snapshots may take, and return it.

    Raises:
        ValueError: If it is no share (a float) and no number of bytes (an int of 0, or 1 MiB and more).
    """
    if memory is None or (isinstance(memory, float) and 0 <= memory < float("inf")):
        return memory
    is_whole = isinstance(memory, Integral) and not isinstance(memory, bool)
    if is_whole and (memory == 0 or memory >= LIMITS.smallest):
        return int(memory)
    raise ValueError(
        "memory must be a share of weights, gradients and optimizer state as a float (0.5), or bytes as an int of 0 or "
        f"at least 2**20, or None for the default, got {memory!r}"
    )


class SnapshotStore:
    """Keeps copies of tensors within a limit.

    On the CPU of one process what goes beyond the limit is written to files without a name, which are gone with the
    process however it ends. Elsewhere all snapshots must fit: processes must not differ in what they have, and a GPU
    would wait for a disk.

    Args:
        memory: What snapshots may take in memory: a share of weights, gradients and optimizer state (a float), or
            bytes (an int); None for a quarter, at least 64 MiB, on an accelerator for 4 GiB of the host's memory.

    Attributes:
        uses_files: Something was written to a file.
    """

    def __init__(self, memory: float | None = None) -> None:
        self.uses_files = False
        self._memory = memory_limit(memory)
        self._has_told = False

    def keep(
        self, tensors: Sequence[Tensor], training: int, used: int, number: int, before: Sequence[KeptTensor] = ()
    ) -> list[KeptTensor] | None:
        """Copy tensors; None if there is no room.

        Args:
            tensors: Are copied.
            training: Bytes of weights, gradients and optimizer state.
            used: Bytes in memory that are in use already.
            number: How many such lists there will be at most.
            before: Copies of the same tensors from before; those that are equal are used again.
        """
        can_spill = is_alone() and all(tensor.device.type == "cpu" for tensor in tensors)
        size, limit = size_of(tensors), self._limit(training, can_spill)
        most = max(LIMITS.budget, limit) if can_spill else limit
        if number * size > most:
            return self.refused(f"{number} of {_mib(size)} would take more than {_mib(most)}")
        if not can_spill or used + size <= limit:
            return _copied(tensors, before)
        if not all(map(is_plain, tensors)):
            return self.refused("tensors of a class of their own cannot be written to a file")
        return self._write(tensors, number * size)

    def _limit(self, training: int, on_cpu: bool) -> float:
        if self._memory is None:
            return max(LIMITS.least, LIMITS.share * training) if on_cpu else LIMITS.budget
        return self._memory * training if isinstance(self._memory, float) else self._memory

    def _write(self, tensors: Sequence[Tensor], needed: int) -> list[KeptTensor] | None:
        folder = tempfile.gettempdir()
        try:
            if not self.uses_files and needed > LIMITS.share_of_disk * shutil.disk_usage(folder).free:
                return self.refused(f"{_mib(needed)} are more than half of what is free in {folder}")
            kept = in_file(tensors)
        except OSError as error:
            return self.refused(f"they could not be written to {folder}: {error}")
        self.uses_files = True
        return kept

    def refused(self, why: str) -> list[KeptTensor] | None:
        """Say once why nothing is kept, and return None."""
        if not self._has_told:
            self._has_told = True
            log.warning(
                "No snapshots of weights and optimizer are taken: %s. Rollback and other remedies that go back can do "
                "nothing. Give the guard more memory (memory=, in bytes or as a share), or $TMPDIR more room.",
                why,
            )
        return None


def _copied(tensors: Sequence[Tensor], before: Sequence[KeptTensor]) -> list[KeptTensor]:
    known = [*before, *[None] * (len(tensors) - len(before))]
    return [
        kept if kept is not None and _has_no_gradient(tensor) and kept.is_equal(tensor) else in_memory(tensor)
        for tensor, kept in zip(tensors, known, strict=False)
    ]


def _has_no_gradient(tensor: Tensor) -> bool:
    return tensor.is_leaf and tensor.grad is None


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
