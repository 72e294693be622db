"""The latest batches, in bounded memory."""

from __future__ import annotations

from collections import deque

from grad_callbacks.measurement import Batch
from grad_callbacks.measurement.batch import tensors_in


class BatchBuffer:
    """Holds on to the latest batches that can be replayed.

    Args:
        most: How many.
        budget: Bytes of tensors that they may hold together.
    """

    def __init__(self, most: int, budget: int) -> None:
        self._most, self._budget = most, budget
        self._entries: deque[tuple[Batch, int]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes that the batches hold."""
        return sum(size for _, size in self._entries)

    def add(self, batch: Batch) -> None:
        """Keep a batch, and let go of the oldest ones if there are too many."""
        if batch.replay is None:
            return
        self._entries.append((batch, sum(t.numel() * t.element_size() for t in tensors_in(batch.content))))
        while len(self._entries) > self._most or self.nbytes > self._budget:
            self._entries.popleft()

    def latest(self, count: int) -> list[Batch]:
        """The latest ``count`` batches, in their order."""
        return [batch for batch, _ in self._entries][len(self._entries) - count :]
