"""The first line of a journal: which run it holds. A journal may come from anybody, so it is checked like any input."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import SUFFIX, VERSION, Entry, parse, read_lines, to_line

LATEST_START = 2**53  # milliseconds since 1970: no run starts later
FIRST = 4  # lines among which header and copy are, also if one of them is broken in two
HEAD = 1024 * 1024  # bytes of a file in which its header and the copy of it must be
_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")  # it stands in searches on the server
_TEXTS = ("uri", "name", "artifact_location", "run_id", "status")


class UnreadableJournal(ValueError):
    """A journal cannot be read; the message says why and what to do."""


def is_id(value: object) -> bool:
    """True if it can be the id of a journal."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def header_lines(header: Mapping[str, Any]) -> bytes:
    """Return the lines that begin a file: the header and a copy of it, in case that one is damaged."""
    whole = {"version": VERSION, **header}
    return to_line(whole) + to_line({"header": whole})


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a journal; empty if the file is no journal, or none that can be read."""
    try:
        return checked_header(path)
    except UnreadableJournal:
        return {}


def checked_header(path: Path) -> dict[str, Any]:
    """Return the header of a journal; empty if the file is no journal.

    Raises:
        UnreadableJournal: If it is one, but its header is damaged, or was written by a newer version.
    """
    if path.name.startswith("."):
        raise UnreadableJournal("no journal has such a name: what belongs to it would be outside of the folder")
    if path.is_symlink():
        raise UnreadableJournal("it is a link, and only files of the folder itself are sent: copy the file here")
    lines = _first_lines(path)
    for entry in _entries(lines[:FIRST]):
        version = entry.get("version", 1)
        if not isinstance(version, int) or version > VERSION:
            raise UnreadableJournal(
                f"it has format {version}, and this version of grad-callbacks reads up to {VERSION}: "
                "upgrade with: pip install --upgrade grad-callbacks"
            )
        if "id" in entry:
            return _valid(entry)
    if _looks_like_a_journal(path, lines):
        raise UnreadableJournal(
            f"its header is damaged, so the run and experiment of its {_count(path)} lines are not known: "
            "take the file from a backup, or copy the first line of another journal of this experiment to its start"
        )
    return {}


def _valid(header: Entry) -> dict[str, Any]:
    """The header with values of the right types only.

    Raises:
        UnreadableJournal: If it has no usable id or experiment.
    """
    if not is_id(header["id"]):
        raise UnreadableJournal("its header has no valid run id")
    if not _is_text(header.setdefault("experiment", "lightning_logs")) or not header["experiment"]:
        raise UnreadableJournal("its header has no valid name of an experiment")
    for key in _TEXTS:
        if not _is_text(header.get(key)):
            header.pop(key, None)
    for key in ("start", "base", "first"):
        if type(header.get(key)) is not int or not 0 <= header[key] < LATEST_START:
            header.pop(key, None)
    for key in ("tags", "opened", "copies", "sent"):
        if not isinstance(header.get(key), dict):
            header.pop(key, None)
    if "tags" in header:
        header["tags"] = {name: str(value) for name, value in header["tags"].items()}
    return header


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _entries(lines: list[bytes]) -> Iterator[Entry]:
    """Yield the first lines that can be read; from the copy of a header, the header."""
    for raw in lines:
        for line in read_lines(raw + b"\n", 0):
            entry = line.entry or _newer(raw) or {}
            entry = entry.get("header", entry)
            if isinstance(entry, dict):
                yield entry


def _newer(line: bytes) -> Entry | None:
    """The header of a format that this version does not know, if the line is one."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and "version" in entry and "crc" not in entry else None


def _first_lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            return file.read(HEAD).split(b"\n")[:100]
    except OSError:
        return []


def _looks_like_a_journal(path: Path, lines: list[bytes]) -> bool:
    if not any(lines):  # of a process whose disk was full from the start
        return False
    beside = (path.with_suffix(".lock"), path.with_suffix(".sent"), path.with_suffix(""))
    return any(file.exists() for file in beside) or any(parse(line) is not None for line in lines)


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(HEAD), b""))


def journal_files(folder: Path) -> list[Path]:
    """Return the files in a folder that may be journals."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if os.path.lexists(path))
