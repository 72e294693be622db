"""The journal of a run: a local file that holds everything logged, so that nothing depends on a server."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.copies import ArtifactCopies
from grad_callbacks.tracking.journal.format import ENDED, VERSION, Entry, now, to_line
from grad_callbacks.tracking.journal.header import header_lines, journal_files, read_header
from grad_callbacks.tracking.journal.host import Host
from grad_callbacks.tracking.journal.lock import JournalLock
from grad_callbacks.tracking.journal.ownership import is_own
from grad_callbacks.tracking.journal.positions import Positions
from grad_callbacks.tracking.journal.reader import JournalReader
from grad_callbacks.tracking.journal.trimming import TRIM_SIZE, UNFINISHED, sent_copies, trim

DISK_LIMIT = 10 * 2**30  # bytes of a run's journal together with its copies of artifacts
MEMORY_LIMIT = 64 * 2**20  # bytes of entries that the disk did not take
NUMBER_SIZE = 40  # bytes that number and checksum add to a line at most
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


class Journal(JournalReader):
    """An append-only file of JSON lines with a lock, the servers' positions and a folder with copies of artifacts.

    ==================  ==================================================================================
    ``<name>.jsonl``    a header, then one entry per line, in the order of logging
    ``<name>/``         copies of artifacts
    ``<name>.lock``     held by the process that writes; the system frees it however the process ends
    ``<name>.sent``     for each server its run's id and how many bytes of the journal it has
    ==================  ==================================================================================

    Each line is handed to the operating system at once, so it survives when the process is killed, and has a number and
    a checksum, so damage is seen. Entries that the disk does not take stay in memory, up to 64 MB, and are sent to the
    server from there; beyond that they are dropped and counted in :attr:`dropped`. The format is described in
    ``docs/journal.md``.

    Args:
        path: The ``.jsonl`` file; made if it does not exist.
        header: The first line of a new file.
        disk_limit: Bytes of file and copies. Beyond it, copies that were sent are removed and entries stay in memory.

    Attributes:
        dropped: How many entries are lost, because neither disk nor memory took them.
        write_error: The last error of the disk; None if there was none.
        unwritten: Entries that the disk did not take, with their sizes in bytes.
        is_trusted: Where the header leads is followed: this user's own process wrote it, or the user said so.
        named_runs: The ids of existing runs that the user asked to continue.
        notes: What was found out of order when the journal was taken.
        is_shorter: A server has more of the journal than the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None, disk_limit: int = DISK_LIMIT) -> None:
        super().__init__(path, header)
        self.disk_limit = disk_limit
        self.lock = JournalLock(path)
        self.positions = Positions(path)
        self.copies = ArtifactCopies(path.with_suffix(""))
        self.dropped = 0
        self.write_error: OSError | None = None
        self.unwritten: deque[tuple[Entry, int]] = deque()
        self._unwritten_bytes = 0
        self._mutex = threading.Lock()
        self._file = -1
        self._number = 0  # of the next entry; counted when the file is opened
        self.is_trusted = header is not None or is_own(self.header)
        self.named_runs: set[str] = set()
        self.notes: list[str] = []
        self.is_shorter = False

    def take(self) -> bool:
        """Take the lock; False if another living process has it."""
        return self.lock.take()

    def take_existing(self) -> bool:
        """Take the lock of a journal that was found; False if another process has it or has just removed it."""
        if not self.take():
            return False
        self.header = read_header(self.path)  # as the process that had it has left it
        if "id" not in self.header:
            self.close()
            return False
        self.positions.read()
        self.reconcile()
        return True

    def reconcile(self) -> None:
        """Make the positions fit the file, before anything is sent or written: either may be damaged."""
        if self.positions.problem:
            self.notes.append(self.positions.problem)
        for server in self.positions.limit(self.end(), self.base + self.size()):
            self.is_shorter = True
            self.notes.append(
                f"the journal is shorter than what {server} has of it, as after a power cut: nothing of that is "
                "missing there, and what was logged since is sent"
            )

    # Writing

    @property
    def is_written(self) -> bool:
        """True if the disk takes entries, and none waits in memory."""
        return self._file >= 0 and not self.unwritten

    def open_for_writing(self) -> None:
        """Open or make the file; if the disk refuses, :attr:`write_error` is set and each entry tries again."""
        with self._mutex:
            self._open()

    def append(self, entry: Entry) -> None:
        """Write one entry; if the disk refuses, keep it in memory."""
        with self._mutex:
            if self.unwritten or not self._write(entry):
                self._keep_in_memory(entry, len(to_line(entry)) + NUMBER_SIZE)

    def copy_artifact(self, local: Path) -> Entry:
        """Copy a file and return the fields of its entry: ``file``, the copy's path, and ``bytes``.

        Raises:
            OSError: If the file cannot be read, or there is no disk space for a copy.
        """
        return self.copies.add(local, self.disk_limit - self.size())

    def flush_to_disk(self) -> None:
        """Make the operating system write the file to the disk."""
        if self._file >= 0:
            with suppress(OSError):
                os.fsync(self._file)

    def retry_unwritten(self) -> None:
        """Try once more to write what the disk did not take, before the process ends."""
        with self._mutex:
            self._retry_unwritten()

    def close(self) -> None:
        """Close the file and free the lock, after a last try to write what the disk did not take."""
        with self._mutex:
            self._retry_unwritten()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            self._remove_empty()
            self.lock.release()

    def _remove_empty(self) -> None:
        """Remove a file that has not even its header, and its copies: the disk was full from the start."""
        with suppress(OSError):
            if self.write_error is not None and self.path.stat().st_size == 0:
                self.path.unlink()
                self.copies.remove_all()

    def _retry_unwritten(self) -> None:
        while self.unwritten:
            entry, size = self.unwritten[0]
            if not self._write(entry):
                return
            self.unwritten.popleft()
            self._unwritten_bytes -= size

    def _open(self) -> bool:
        if self._file >= 0:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o600)
        except OSError as error:
            self.write_error = error
            return False
        size = os.fstat(self._file).st_size
        opened = {"opened": Host.here().to_dict(), "t": now()}
        if not size:
            self.header = {"version": VERSION} | self.header
            self._number = 1
            return self._put(header_lines(self.header | opened))
        self._number = self.next_number()
        is_incomplete = os.pread(self._file, 1, size - 1) != b"\n"
        return self._put((b"\n" if is_incomplete else b"") + to_line(opened))

    def _write(self, entry: Entry) -> bool:
        if not self._open() or not self._put(to_line(entry, self._number)):
            return False
        self._number += 1
        return True

    def _put(self, line: bytes) -> bool:
        size = os.fstat(self._file).st_size
        try:
            if size + len(line) > self.disk_limit:
                raise OSError(f"the journal has reached its limit of {self.disk_limit} bytes")
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, size)
                raise OSError("the disk is full")
        except OSError as error:
            self.write_error = error
            if size == 0:  # without its header the file is no journal
                os.close(self._file)
                self._file = -1
            return False
        return True

    def _keep_in_memory(self, entry: Entry, size: int) -> None:
        if self._unwritten_bytes + size > MEMORY_LIMIT:
            self.dropped += 1
            return
        self.unwritten.append((entry, size))
        self._unwritten_bytes += size

    # Sending

    def in_memory(self) -> list[tuple[Entry, int]]:
        """Return the entries that the disk did not take, with their sizes in bytes."""
        with self._mutex:
            return list(self.unwritten)

    def forget_in_memory(self, sent: list[Entry]) -> None:
        """Remove entries from memory, with their copies: the server has them. Others may be on the disk now."""
        ids = {id(entry) for entry in sent}
        with self._mutex:
            kept = [pair for pair in self.unwritten if id(pair[0]) not in ids]
            self.unwritten = deque(kept)
            self._unwritten_bytes = sum(size for _, size in kept)
        for entry in sent:
            if "file" in entry:
                self.copies.remove(entry)

    def remove_sent(self, tables: Mapping[str, str]) -> bool:
        """Remove what every server of the journal has from the file's start; True if it did (see :mod:`.trimming`).

        Args:
            tables: Copies that are still needed, by their artifact's path.
        """
        upto = self.positions.least()
        if self.header.get("keep") or self.unwritten or self._file < 0 or upto - self.base < TRIM_SIZE:
            return False
        if not self.positions.is_saved:
            return False
        needed = set(tables.values()) | self.positions.deferred_files()
        sent = [entry for entry in sent_copies(self, upto) if entry["file"] not in needed]
        with self._mutex:
            header = self.header | {"copies": dict(tables), "sent": self.positions.run_id_of_each()}
            trimmed = trim(self, upto, header, self._number)
            if trimmed is None:
                return False
            os.close(self._file)
            self._file, self.header = trimmed
        for entry in sent:
            self.copies.remove(entry)
        return True

    def release_copy(self, entry: Entry) -> None:
        """Remove a copy that was sent, if half of the disk limit is used; other copies stay until all is sent."""
        if self.bytes() > self.disk_limit // 2:
            self.copies.remove(entry)

    def bytes(self) -> int:
        """Bytes of the file and of the copies."""
        return self.size() + self.copies.bytes()

    def is_wholly_sent(self) -> bool:
        """True if the run has ended and some server has every entry."""
        return self.positions.is_complete(self.end()) and not self.unwritten and self.last_status() in ENDED

    def remove(self) -> None:
        """Remove the journal: file, copies, positions and lock."""
        self.copies.remove_all()
        self.positions.remove()
        for path in (self.path.with_suffix(UNFINISHED), self.path, self.lock.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def journals(folder: Path) -> Iterator[Journal]:
    """Yield the journals in a folder that can be read, ordered by the start of their runs."""
    found = []
    for path in journal_files(folder):
        journal = Journal(path)
        if "id" in journal.header:
            found.append(journal)
    yield from sorted(found, key=lambda journal: (journal.header.get("start", 0), journal.path.name))
