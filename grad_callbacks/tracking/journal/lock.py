"""The lock of a journal: which process writes it, and when that process was last alive."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


class JournalLock:
    """A lock file, held by the process that writes the journal; the system frees it however that process ends.

    Args:
        journal: The journal's file. The lock file is the same path with the suffix ``.lock``.

    Attributes:
        last_seen: When the previous holder was last known to be alive, in seconds since 1970; set by :meth:`take`.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_suffix(".lock")
        self.last_seen = 0.0
        self._journal = journal
        self._lock: FileLock | None = None

    def take(self) -> bool:
        """Take the lock; False if another living process has it.

        True on a file system without locks: there no other process can be detected. A link in the lock's place is
        removed: it was not made by a process that logs.
        """
        with suppress(OSError):
            if self.path.is_symlink():
                self.path.unlink()
        self.last_seen = self._last_change()  # before taking the lock changes it
        lock = FileLock(self.path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            return True
        self._lock = lock
        return True

    def release(self) -> None:
        """Free the lock, if this process has it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def touch(self) -> None:
        """Show that the holder is alive."""
        with suppress(OSError):
            os.utime(self.path)

    def _last_change(self) -> float:
        times = [0.0]
        for file in (self._journal, self.path):
            with suppress(OSError):
                times.append(file.stat().st_mtime)
        return max(times)
