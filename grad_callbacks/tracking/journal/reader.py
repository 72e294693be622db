"""Reading a journal's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import Entry, parse, read_header
from grad_callbacks.tracking.journal.host import Host

CHUNK = 256 * 1024  # bytes that are read at once
TAIL = 64 * 1024  # bytes at the end of the file among which the last status is


class JournalReader:
    """Reads a journal, also while another process writes it.

    Args:
        path: The ``.jsonl`` file.
        header: The first line of a file that is yet to be made; by default it is read from the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.header: dict[str, Any] = dict(header) if header is not None else read_header(path)

    @property
    def id(self) -> str:
        """The run's id in the journal, which stays the same whatever id a server gives it."""
        return str(self.header["id"])

    def entries(self, offset: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield entries from ``offset`` on, each with the offset of its end; an unreadable line is an empty entry.

        A line is parsed only when it is asked for: after a long outage a journal holds far more than one batch takes.
        """
        while lines := self._lines(offset):
            for line in lines:
                offset += len(line)
                yield parse(line), offset

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

    def size(self) -> int:
        """Bytes of the file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def end(self) -> int:
        """The offset at which the last complete line ends."""
        size = self.size()
        with suppress(OSError), self.path.open("rb") as file:
            start = max(0, size - TAIL)
            file.seek(start)
            return start + file.read(size - start).rfind(b"\n") + 1
        return 0

    def last_status(self) -> str:
        """The status that was written last; ``RUNNING`` if there is none."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, self.size() - TAIL))
            for line in reversed(file.read().splitlines()):
                entry = parse(line)
                if "status" in entry:
                    return str(entry["status"])
                if "opened" in entry:
                    break
        return "RUNNING"

    def owner(self) -> Host:
        """The machine and process that wrote last."""
        owner = self.header.get("opened", {})
        for entry, _ in self.entries():
            owner = entry.get("opened", owner)
        return Host.from_dict(owner)
