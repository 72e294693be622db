"""A clock for measurements on a machine that is busy with other programs, too."""

from __future__ import annotations

import time
from pathlib import Path


def own_time() -> float:
    """Seconds on a clock that stands still while this thread is ready to run and other programs have the processor."""
    try:
        queued = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:  # not Linux
        queued = 0.0
    return time.perf_counter() - queued
