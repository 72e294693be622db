"""The journal's file format: JSON lines, each with a checksum (see ``docs/journal.md``)."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Entry = dict[str, Any]
VERSION = 2  # of the format; 1 had no checksums and no numbers
SUFFIX = ".jsonl"
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})  # MLflow's statuses of a run that has ended
STATUSES = ENDED | {"RUNNING", "SCHEDULED"}

_CHECK = re.compile(rb',"crc":"([0-9a-f]{8})"\}\s*$')
_MARK = b',"crc":"'
_JOINT = re.compile(rb'(?<="\})[^\n](?=\{")')  # a damaged line break between two lines
# All that a line without a checksum may hold: a line of which a key is damaged is no entry.
_VALUES = {"m", "s", "t", "of", "p", "g", "run", "file", "bytes", "to", "untag", "status", "name", "datasets"}
_LATER = {"guessed", "crc32"}  # that format 1 did not have
_HEADER = {
    "opened",
    "journal",
    "id",
    "uri",
    "experiment",
    "artifact_location",
    "name",
    "tags",
    "start",
    "keep",
    "run_id",
}
_KEYS = _VALUES | _LATER | _HEADER
_NO_ENTRY = (b'{"opened":', b'{"version":', b'{"header":')  # how the lines begin that are no entries


@dataclass(frozen=True)
class Line:
    """One line of a journal.

    Attributes:
        entry: What it holds; None if it is damaged.
        end: The offset in the journal at which it ends.
        number: Its number among the journal's entries, from 1; None for headers, and for lines of format 1.
        size: Entries that it held at least, if it is damaged.
        is_entry: False if it is damaged and what is left is of a header, not of an entry.
    """

    entry: Entry | None
    end: int
    number: int | None = None
    size: int = 0
    is_entry: bool = True


def to_line(entry: Entry, number: int | None = None) -> bytes:
    """Return an entry as one line of the file.

    Args:
        entry: What the line holds.
        number: Its number among the journal's entries.
    """
    body = json.dumps(entry if number is None else entry | {"n": number}, separators=(",", ":")).encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body[:-1]))


def parse(line: bytes, is_entry: bool = True) -> Entry | None:
    """Return the entry of a line; None if it is incomplete, damaged or no entry.

    Args:
        line: With or without its line break.
        is_entry: It is a line of a journal: without a checksum it may hold nothing but an entry's keys.
    """
    line = line[max(line.find(b"{"), 0) :]
    check = _CHECK.search(line)
    if check is not None and zlib.crc32(line[: check.start()]) != int(check[1], 16):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # cut off when its process was killed or its disk was full
        return None
    if not isinstance(entry, dict) or not entry:
        return None
    if check is not None:
        del entry["crc"]
    elif is_entry and not entry.keys() <= _KEYS:
        return None
    return entry


def is_of_entry(line: bytes) -> bool:
    """True if a line that cannot be read may be what is left of an entry: it is not empty, and no header."""
    line = line.strip()
    is_header = len(line) > 2 and any(begin.startswith(line) or line.startswith(begin) for begin in _NO_ENTRY)
    return bool(line) and not is_header


def read_lines(raw: bytes, end: int) -> Iterator[Line]:
    """Yield what one line holds: one entry, or two if the line break between them is damaged.

    Args:
        raw: The line, with its line break.
        end: The offset at which it ends.
    """
    if raw == b"\n":  # written before the first line of a process, if the last one of another was broken off
        return
    entry = parse(raw)
    if entry is not None:
        yield _line(entry, end)
        return
    start = end - len(raw)
    for piece in _pieces(raw):
        start += len(piece)
        entry = parse(piece)
        damaged = Line(None, start, size=piece.count(_MARK), is_entry=is_of_entry(piece))
        yield damaged if entry is None else _line(entry, start)


def _line(entry: Entry, end: int) -> Line:
    number = entry.pop("n", None)
    return Line(entry, end, number if type(number) is int and number > 0 else None)


def _pieces(raw: bytes) -> list[bytes]:
    cuts = [0, *(joint.start() for joint in _JOINT.finditer(raw)), len(raw)]
    pieces = [raw[cut:following] for cut, following in pairwise(cuts)]
    return pieces if any(parse(piece) is not None for piece in pieces) else [raw]


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
