"""The journal of a run: everything that is logged, in a file of its own, before a server has seen any of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from grad_callbacks.tracking.journal.host import Host

Entry = dict[str, Any]
SUFFIX = ".jsonl"
DISK_LIMIT = 10 * 2**30  # bytes of a run's journal with its copies of artifacts
MEMORY_LIMIT = 64 * 2**20  # bytes of entries that the disk did not take
CHUNK = 256 * 1024  # bytes that are read at once
TAIL = 64 * 1024  # a run's last status stands within so many bytes of the end
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})


class Journal:
    """An append-only file of JSON lines; beside it a folder with copies of artifacts, a lock and what was acknowledged.

    ==================  ==========================================================================
    ``<name>.jsonl``    a header, then one entry a line, in the order of logging
    ``<name>/``         copies of artifacts
    ``<name>.lock``     held by the process that writes, and freed by the system however it ends
    ``<name>.sent``     for each server its run and how many bytes of the journal it has
    ==================  ==========================================================================

    A line is handed to the system at once, so it outlives the process, also one that is killed outright. A last line
    that was torn is passed over. What the disk does not take waits in memory, up to 64 MB, and goes to the server
    from there; beyond that it is dropped and counted in :attr:`dropped`.

    Args:
        path: The ``.jsonl`` file; made if it is not there.
        header: The first line of a new file.
        disk_limit: Bytes of file and copies; beyond it copies that were sent are removed, then entries wait in memory.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None, disk_limit: int = DISK_LIMIT) -> None:
        self.path = path
        self.folder = path.with_suffix("")
        self.disk_limit = disk_limit
        self.dropped = 0
        self.last_sign = 0.0  # of the process that wrote before, seconds since 1970; known when the lock is taken
        self.trouble: OSError | None = None
        self.waiting: deque[tuple[Entry, int]] = deque()  # entries that the disk did not take, and their sizes
        self._waiting_bytes = 0
        self._copied = -1  # bytes of copies; counted when needed
        self._mutex = threading.Lock()
        self._lock: FileLock | None = None
        self._file = -1
        self.header: dict[str, Any] = dict(header) if header is not None else read_header(path)
        self.sent = _read_json(self.sent_path)

    @property
    def sent_path(self) -> Path:
        """The file that tells what was acknowledged."""
        return self.path.with_suffix(".sent")

    @property
    def id(self) -> str:
        """The run's name for life, whatever a server calls it."""
        return str(self.header["id"])

    # The process that writes

    def take(self) -> bool:
        """Take the lock; False if another living process has it. Where nothing can be locked, nothing is shared."""
        self.last_sign = self._last_sign()  # taking the lock is one of ours
        lock = FileLock(self.path.with_suffix(".lock"), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            return True
        self._lock = lock
        return True

    def take_existing(self) -> bool:
        """Take the lock of a journal that was found; False if another process has it, or has removed it meanwhile."""
        if not self.take():
            return False
        if self.path.exists():
            return True
        self.close()
        return False

    def open_for_writing(self) -> None:
        """Open, or make, the file; a disk that refuses is remembered as trouble and tried again."""
        with self._mutex:
            self._open()

    def append(self, entry: Entry) -> None:
        """Write one entry; where the disk refuses, keep it in memory."""
        line = _line(entry)
        with self._mutex:
            if self.waiting or not self._write(line):
                self._wait(entry, len(line))

    def keep(self, local: Path) -> Entry:
        """Copy a file and return what an entry says of it: ``file``, the copy, and ``bytes``.

        Raises:
            OSError: If it cannot be read, or no disk takes it.
        """
        size = local.stat().st_size
        place = Path(uuid.uuid4().hex[:12]) / local.name
        try:
            if self.bytes() + size > self.disk_limit:
                raise OSError(f"the journal may take {self.disk_limit} bytes")
            (self.folder / place).parent.mkdir(parents=True)
            shutil.copyfile(local, self.folder / place)
        except OSError:
            shutil.rmtree((self.folder / place).parent, ignore_errors=True)
            if not local.exists():
                raise
            copy = Path(tempfile.mkdtemp(prefix="grad-callbacks-")) / local.name
            try:
                shutil.copyfile(local, copy)
            except OSError:
                shutil.rmtree(copy.parent, ignore_errors=True)
                raise
            return {"file": str(copy), "bytes": size}
        self._copied += size
        return {"file": place.as_posix(), "bytes": size}

    def flush_to_disk(self) -> None:
        """Have the disk, not only the system, hold what was written."""
        if self._file >= 0:
            with suppress(OSError):
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file and free the lock; what waits in memory gets a last chance."""
        with self._mutex:
            self._rescue()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def rescue(self) -> None:
        """Try to write what waits in memory, for the process is about to end."""
        with self._mutex:
            self._rescue()

    def _rescue(self) -> None:
        while self.waiting:
            entry, size = self.waiting[0]
            if not self._write(_line(entry)):
                return
            self.waiting.popleft()
            self._waiting_bytes -= size

    def _last_sign(self) -> float:
        signs = [0.0]
        for file in (self.path, self.path.with_suffix(".lock")):
            with suppress(OSError):
                signs.append(file.stat().st_mtime)
        return max(signs)

    def _open(self) -> bool:
        if self._file >= 0:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            self.trouble = error
            return False
        size = os.fstat(self._file).st_size
        opened = {"opened": Host.here().to_dict(), "t": now()}
        first = opened if size else self.header | opened
        torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        return self._put((b"\n" if torn else b"") + json.dumps(first).encode() + b"\n")

    def _write(self, line: bytes) -> bool:
        return self._open() and self._put(line)

    def _put(self, line: bytes) -> bool:
        size = os.fstat(self._file).st_size
        try:
            if size + len(line) > self.disk_limit:
                raise OSError(f"the journal may take {self.disk_limit} bytes")
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, size)
                raise OSError("the disk is full")
        except OSError as error:
            self.trouble = error
            if size == 0:  # a file without its header is none
                os.close(self._file)
                self._file = -1
            return False
        return True

    def _wait(self, entry: Entry, size: int) -> None:
        if self._waiting_bytes + size > MEMORY_LIMIT:
            self.dropped += 1
            return
        self.waiting.append((entry, size))
        self._waiting_bytes += size

    # The process that sends

    def entries(self, offset: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield entries from ``offset`` on, each with the offset behind it; a line that is none is an empty entry.

        A line is parsed when it is asked for: a batch takes few of those that a long outage leaves behind.
        """
        while lines := self._lines(offset):
            for line in lines:
                offset += len(line)
                yield _parse(line), offset

    def _lines(self, offset: int) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                chunk = file.read(CHUNK)
                while b"\n" not in chunk and (more := file.read(CHUNK)):
                    chunk += more
        except OSError:
            return []
        return chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True)

    def in_memory(self) -> list[tuple[Entry, int]]:
        """Return the entries that the disk did not take, with their sizes."""
        with self._mutex:
            return list(self.waiting)

    def done_waiting(self, count: int) -> None:
        """Forget the first ``count`` entries in memory: the server has them."""
        with self._mutex:
            for _ in range(count):
                entry, size = self.waiting.popleft()
                self._waiting_bytes -= size
                if "file" in entry:
                    self._remove(self.local(entry))

    def local(self, entry: Entry) -> Path:
        """Where the copy is that an entry speaks of."""
        return self.folder / str(entry["file"])  # an absolute path stays one

    def acknowledge(self, server: str, state: Mapping[str, Any]) -> None:
        """Note what a server has; kept in memory alone where the disk refuses, which costs sending it again."""
        self.sent[server] = dict(state)
        text = json.dumps(self.sent)
        temporary = self.sent_path.with_suffix(".sent~")
        with suppress(OSError):
            try:
                temporary.write_text(text)
                os.replace(temporary, self.sent_path)
            except OSError:
                temporary.unlink(missing_ok=True)

    def release_copy(self, entry: Entry) -> None:
        """Remove a copy that was sent, where disk is short; otherwise it stays until the run is wholly sent."""
        if self.bytes() > self.disk_limit // 2:
            size = self.local(entry).stat().st_size if self.local(entry).exists() else 0
            self._remove(self.local(entry))
            self._copied -= size

    @staticmethod
    def _remove(copy: Path) -> None:
        shutil.rmtree(copy.parent, ignore_errors=True)

    def beat(self) -> None:
        """Leave a sign of life."""
        with suppress(OSError):
            os.utime(self.path.with_suffix(".lock"))

    # What both ask

    def size(self) -> int:
        """Bytes of the file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def end(self) -> int:
        """Where the last whole line ends."""
        size = self.size()
        with suppress(OSError), self.path.open("rb") as file:
            start = max(0, size - TAIL)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
        return 0

    def bytes(self) -> int:
        """Bytes of the file and of the copies."""
        if self._copied < 0:
            self._copied = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return self.size() + self._copied

    def last_status(self) -> str:
        """The status that was written last; ``RUNNING`` if none was."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, self.size() - TAIL))
            for line in reversed(file.read().splitlines()):
                entry = _parse(line)
                if "status" in entry:
                    return str(entry["status"])
                if "opened" in entry:
                    break
        return "RUNNING"

    def owner(self) -> Host:
        """Where the process runs, or ran, that wrote last."""
        owner = self.header.get("opened", {})
        for entry, _ in self.entries():
            owner = entry.get("opened", owner)
        return Host.from_dict(owner)

    def is_wholly_sent(self) -> bool:
        """True if the run has ended and some server has acknowledged every entry."""
        done = any(state.get("offset", 0) >= self.end() and not state.get("deferred") for state in self.sent.values())
        return done and not self.waiting and self.last_status() in ENDED

    def remove(self) -> None:
        """Remove file, copies and notes."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for suffix in (SUFFIX, ".sent", ".sent~", ".lock"):
            with suppress(OSError):
                self.path.with_suffix(suffix).unlink(missing_ok=True)


def journals(folder: Path) -> Iterator[Journal]:
    """Yield the journals in a folder, in the order in which their runs began."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        journal = Journal(path)
        if "id" in journal.header:
            found.append(journal)
    yield from sorted(found, key=lambda journal: (journal.header.get("start", 0), journal.path.name))


def read_header(path: Path) -> dict[str, Any]:
    """Return the first line of a journal; empty if it is none."""
    try:
        with path.open("rb") as file:
            return _parse(file.readline())
    except OSError:
        return {}


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> Entry:
    try:
        entry = json.loads(line)
    except ValueError:  # torn, when its process was killed or its disk was full
        return {}
    return entry if isinstance(entry, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return {}
