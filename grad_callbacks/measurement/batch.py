"""The batch of a step, and the tensors in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class BatchThresholds(Thresholds):
    """Thresholds of the search for tensors in a batch."""

    depth: int = threshold(6, "nested containers are searched down to this depth", unit="levels", source="not measured")


LIMITS = BatchThresholds()


@dataclass(slots=True, eq=False)  # a frozen one takes five times as long to make
class Batch:
    """The batch of a step.

    Attributes:
        content: The batch itself, with tensors nested in it; None if it is unknown.
        index: Its place in the epoch.
        replay: Computes its loss again; None where that is not possible.
    """

    content: Any = None
    index: int | None = None
    replay: Callable[[], Tensor] | None = None


def tensors_in(batch: Any, depth: int = LIMITS.depth) -> Iterator[Tensor]:
    """Walk over the tensors nested in mappings, sequences and dataclasses."""
    if isinstance(batch, Tensor):
        yield batch
        return
    if depth == 0 or isinstance(batch, (str, bytes)):
        return
    entries: list[Any] = []
    if isinstance(batch, Mapping):
        entries = list(batch.values())
    elif isinstance(batch, (list, tuple)):
        entries = list(batch)
    elif is_dataclass(batch) and not isinstance(batch, type):
        entries = [getattr(batch, entry.name) for entry in fields(batch)]
    elif hasattr(batch, "__dict__"):  # graphs and other classes of libraries
        entries = list(vars(batch).values())
    for entry in entries:
        yield from tensors_in(entry, depth - 1)
