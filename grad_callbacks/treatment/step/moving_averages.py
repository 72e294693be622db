"""Averages of the weights in snapshots: kept once they are seen to move, restored or begun again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from grad_callbacks.measurement import DeviceTransfer
from grad_callbacks.treatment.step.averages import Average, Averages, samples
from grad_callbacks.treatment.step.kept_tensors import KeptTensor
from grad_callbacks.treatment.step.packing import can_take, put


@dataclass
class KeptAverage:
    """An average at the time of a snapshot.

    Attributes:
        average: What it is of.
        marks: A few of its entries, perhaps on their way to the host.
        moves: It has moved since it was first seen; a frozen teacher has not.
        copies: Copies of its tensors and counts, if it moves.
    """

    average: Average
    marks: DeviceTransfer
    moves: bool = False
    copies: Sequence[KeptTensor] = ()

    @property
    def to_copy(self) -> list[Tensor]:
        """The tensors that a snapshot copies."""
        return self.average.everything if self.moves else []

    def take_copies(self, copies: Sequence[KeptTensor]) -> Sequence[KeptTensor]:
        """Take the copies of :attr:`to_copy` from a list, and return the rest."""
        count = len(self.to_copy)
        self.copies = copies[:count]
        return copies[count:]


@dataclass(frozen=True)
class AveragesRestored:
    """What became of the averages when a snapshot was restored.

    Attributes:
        restored: How many are what they were then.
        restarted: How many begin again with the restored weights.
        lost: Where those are that still hold what the weights were since.
    """

    restored: int = 0
    restarted: int = 0
    lost: tuple[str, ...] = ()

    @property
    def detail(self) -> dict[str, int | str]:
        """What an intervention says about it; nothing about averages that are what they were."""
        found: dict[str, int | str] = {"averages_restored": self.restored, "averages_restarted": self.restarted}
        return {name: count for name, count in found.items() if count} | (
            {"averages_lost": ", ".join(self.lost)} if self.lost else {}
        )


class MovingAverages:
    """Which averages there are, and which of them move.

    A frozen network of the model's shapes is no average: its entries stay the same, it is not copied, and never
    written to.

    Args:
        averages: Finds them.
    """

    def __init__(self, averages: Averages) -> None:
        self._averages = averages
        self._last: dict[int, DeviceTransfer] = {}  # by the id of the first tensor
        self._moving: set[int] = set()

    def note(self) -> list[KeptAverage]:
        """Return all averages there are, without copies, and see which have moved since the last call."""
        found = [KeptAverage(average, DeviceTransfer(samples(average))) for average in self._averages.find()]
        for kept in found:
            key = id(kept.average.tensors[0])
            if key in self._last and differ(self._last[key], kept.marks):
                self._moving.add(key)
            self._last[key] = kept.marks
            kept.moves = key in self._moving
        return found

    def restore(self, snapshot: Sequence[KeptAverage]) -> AveragesRestored:
        """Restore the averages of a snapshot; those that moved since and were not kept begin again."""
        restored, restarted, lost = 0, 0, []
        then = {id(kept.average.tensors[0]): kept for kept in snapshot}
        for average in self._averages.find():
            kept = then.get(id(average.tensors[0]))
            if kept is not None and kept.copies and _fit(kept):
                for tensor, copied in zip(average.everything, kept.copies, strict=True):
                    put(tensor.detach(), copied.get())
                restored += 1
            elif kept is not None and not differ(kept.marks, DeviceTransfer(samples(average))):
                continue  # as it was
            elif self._averages.begin_again(average):
                restarted += 1
            else:
                lost.append(average.name)
        return AveragesRestored(restored, restarted, tuple(lost))

    def restart(self) -> AveragesRestored:
        """Let the averages that say how many models they are of begin again with the present weights."""
        counting = [average for average in self._averages.find() if average.counts]
        return AveragesRestored(restarted=sum(map(self._averages.begin_again, counting)))


def differ(before: DeviceTransfer, now: DeviceTransfer) -> bool:
    """True if entries have changed."""
    pairs = zip(before.wait(), now.wait(), strict=False)
    return any(not np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _fit(kept: KeptAverage) -> bool:
    return all(can_take(now, copied.get()) for now, copied in zip(kept.average.everything, kept.copies, strict=True))
