"""Reading a journal's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import Entry, Line, is_of_entry, parse, read_lines
from grad_callbacks.tracking.journal.header import read_header
from grad_callbacks.tracking.journal.host import Host

CHUNK = 256 * 1024  # bytes that are read at once
TAIL = 64 * 1024  # bytes at the end of the file among which the last status is


class JournalReader:
    """Reads a journal, also while another process writes it.

    Offsets count all bytes that were ever written: what was sent may have been removed from the file's start
    (see :mod:`.trimming`).

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

    @property
    def base(self) -> int:
        """The offset of the file's first byte: 0 unless something was removed."""
        return int(self.header.get("base", 0))

    @property
    def first_number(self) -> int | None:
        """The number of the first entry in the file; None in format 1, which has no numbers."""
        return int(self.header.get("first", 1)) if self.header.get("version", 1) > 1 else None

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """Yield the lines from ``offset`` on.

        A line is parsed only when it is asked for: after a long outage a journal holds far more than one batch takes.
        """
        offset = max(offset, self.base)
        while lines := self._complete_lines(offset):
            for line in lines:
                offset += len(line)
                for found in read_lines(line, offset):
                    if found.entry is None or "header" not in found.entry:  # the copy of the header
                        yield found

    def lines_with(self, text: bytes, upto: int) -> Iterator[Line]:
        """Yield the lines before an offset that contain a text; others are not parsed, which takes longest."""
        offset = self.base
        while offset < upto and (lines := self._complete_lines(offset)):
            for line in lines:
                offset += len(line)
                if text in line and offset <= upto:
                    yield from read_lines(line, offset)

    def entries(self, offset: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield entries from ``offset`` on, each with the offset of its end; a damaged line is an empty entry."""
        for line in self.lines(offset):
            yield line.entry or {}, line.end

    def _complete_lines(self, offset: int) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(offset - self.base)
                chunk = file.read(CHUNK)
                while b"\n" not in chunk and (more := file.read(CHUNK)):
                    chunk += more
        except OSError:
            return []
        return [line + b"\n" for line in chunk.split(b"\n")[:-1]]

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
            start = size
            while start > 0:
                start = max(0, start - TAIL)
                file.seek(start)
                found = file.read(TAIL).rfind(b"\n")
                if found >= 0:
                    return self.base + start + found + 1
        return self.base

    def incomplete_end(self) -> bytes:
        """What there is of the file's last line, if that is not complete."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self.end() - self.base)
            return file.read()
        return b""

    def header_size(self) -> int:
        """Bytes of the header and its copy at the start of the file."""
        with suppress(OSError), self.path.open("rb") as file:
            return len(file.readline()) + len(file.readline())
        return 0

    def is_line_end(self, offset: int) -> bool:
        """True if a line ends or is broken off at this offset, or everything before was removed."""
        if offset <= self.base:
            return True
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(offset - self.base - 1)
            around = file.read(2)
            return b"\n" in around or len(around) == 1
        return False

    def next_number(self) -> int:
        """The number of the entry to be written next. Damaged lines at the end keep theirs."""
        damaged = 0
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, self.size() - TAIL))
            for line in reversed(file.read().split(b"\n")):
                entry = parse(line)
                if entry is not None and type(entry.get("n")) is int:
                    return int(entry["n"]) + 1 + damaged
                damaged += entry is None and is_of_entry(line)
        return self._next_number_of_all()

    def _next_number_of_all(self) -> int:
        """The same from all lines: there are only headers, or the last line is a very long one."""
        following, headers = self.first_number or 1, self.base + self.header_size()
        for line in self.lines():
            if line.number is not None:
                following = line.number + 1
            elif line.entry is None and line.is_entry and line.end > headers:
                following += 1
        return following + is_of_entry(self.incomplete_end())

    def last_status(self) -> str:
        """The status that was written last; ``RUNNING`` if there is none."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, self.size() - TAIL))
            for line in reversed(file.read().split(b"\n")):
                entry = parse(line) or {}
                if "status" in entry and "run" not in entry:
                    return str(entry["status"])
                if "opened" in entry:
                    break
        return "RUNNING"

    def owner(self) -> Host:
        """The machine and process that wrote last."""
        owner = self.header.get("opened", {})
        for entry, _ in self.entries():
            owner = entry.get("opened", owner)
        return Host.from_dict(owner if isinstance(owner, dict) else {})
