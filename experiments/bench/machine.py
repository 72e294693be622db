"""What the numbers were measured on."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import lightning
import torch


def describe() -> str:
    """Name processor, GPU and versions in one sentence."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, lightning {lightning.__version__}; threads={torch.get_num_threads()}."
    )


def free_bytes() -> float:
    """Return the memory that tensors on the benchmarks' device may take; infinite if the system does not say."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    available = _field("/proc/meminfo", "MemAvailable")
    return 1024 * float(available.removesuffix("kB")) if available else math.inf


def _processor() -> str:
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _field(path: str, name: str) -> str | None:
    """Return a value from one of Linux's files of names and values."""
    if not Path(path).exists():
        return None
    pairs = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == name), None)
