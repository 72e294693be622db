"""Which machine a process runs on, and whether it can still be running."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
SILENCE = 600  # seconds since a process was last known to be alive


@dataclass(frozen=True)
class Host:
    """A process on a machine.

    Attributes:
        name: The machine's host name.
        boot: The id of the machine's last boot; empty where the system has none.
        pid: The process id.
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
        """Rebuild from :meth:`to_dict`."""
        pid = value.get("pid")
        return cls(str(value.get("name", "")), str(value.get("boot", "")), pid if isinstance(pid, int) else 0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that a journal can hold."""
        return asdict(self)

    def is_gone(self, last_seen: float) -> bool:
        """True if the process has certainly ended, given that its lock is free.

        Within one boot of a machine, containers included, a free lock proves it. If a machine of the same name was
        rebooted, the process must also have been silent for ten minutes, since two machines may share a name and a
        folder. About other machines nothing can be said.

        Args:
            last_seen: When the process was last known to be alive, in seconds since 1970.
        """
        here = Host.here()
        if self.boot == here.boot and (self.boot or self.name == here.name):
            return True
        return self.name == here.name and time.time() - last_seen > SILENCE
