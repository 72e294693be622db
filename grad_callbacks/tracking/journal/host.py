"""Which machine a process runs on, and whether it can still be running."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
SILENCE = 600  # seconds without a sign of life


@dataclass(frozen=True)
class Host:
    """A machine, from one start to the next.

    Attributes:
        name: Its name.
        boot: A name for the time since its last start; empty where the system tells none.
        pid: The process.
    """

    name: str
    boot: str
    pid: int

    @classmethod
    def here(cls) -> Host:
        """This process on this machine."""
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
        return cls(socket.gethostname(), boot, os.getpid())

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Host:
        """The opposite of :meth:`to_dict`."""
        return cls(str(value.get("name", "")), str(value.get("boot", "")), int(value.get("pid", 0)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def is_gone(self, last_sign: float) -> bool:
        """True if the process has ended for certain, given that nobody holds its lock.

        A lock tells it within one running machine, containers included. On a machine of the same name that was
        started anew, ten minutes of silence are asked for as well, since two machines may share a name and a folder.
        Of other machines nothing is known from here.

        Args:
            last_sign: When the process gave its last sign of life, seconds since 1970.
        """
        here = Host.here()
        if self.boot == here.boot and (self.boot or self.name == here.name):
            return True
        return self.name == here.name and time.time() - last_sign > SILENCE
