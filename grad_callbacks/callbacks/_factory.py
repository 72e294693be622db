"""Callbacks for every Trainer of a program whose code is not to be changed: Lightning's entry point."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Callback

SWITCH = "GRAD_CALLBACKS"  # the environment variable that asks for them


def callbacks() -> list[Callback]:
    """Return what ``$GRAD_CALLBACKS`` asks for: ``monitor``, ``guard``, or nothing where it is not set.

    Lightning calls this for each Trainer that is made.

    Raises:
        ValueError: If it asks for anything else.
    """
    wanted = os.environ.get(SWITCH, "").strip().lower()
    if not wanted:
        return []
    if wanted not in ("monitor", "guard"):
        raise ValueError(f"${SWITCH} must be monitor or guard, or not be set, got {wanted!r}")
    from grad_callbacks.callbacks._environment import EnvironmentGuard, EnvironmentMonitor

    return [EnvironmentGuard() if wanted == "guard" else EnvironmentMonitor()]
