"""Decisions that all processes take together, though each has seen a batch of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from grad_callbacks.measurement.sharding import is_alone

Found = TypeVar("Found")


def from_all(found: Found) -> list[Found]:
    """Return what each process has found, in the order of their ranks. All processes must call it."""
    if is_alone():
        return [found]
    each: list[Found] = [found] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(each, found)
    return each


def agreed(found: Found | None, merge: Callable[[list[Found]], Found | None]) -> Found | None:
    """Return what all processes decide together, the same on each.

    Args:
        found: What this process has found; None if it gives up, and then all do.
        merge: Makes one of what each has found, in the order of their ranks; None if they do not agree.
    """
    each = from_all(found)
    known = [one for one in each if one is not None]
    return merge(known) if len(known) == len(each) else None
