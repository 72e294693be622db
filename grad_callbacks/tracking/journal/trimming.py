"""Removing what was sent from the start of a journal while its run goes on, so that long runs use little disk space."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.header import header_lines
from grad_callbacks.tracking.journal.host import Host
from grad_callbacks.tracking.journal.reader import JournalReader

TRIM_SIZE = 2**20  # bytes that can be removed at least: rewriting the file for less is not worth it
UNFINISHED = ".jsonl~"  # suffix of the new file until it is complete
LONGEST_REST = 2**20  # bytes that are copied at most, because the training waits meanwhile


def trim(
    journal: JournalReader, upto: int, header: Mapping[str, Any], number: int
) -> tuple[int, dict[str, Any]] | None:
    """Replace a journal's file by one without the entries before an offset; None if nothing was changed.

    The new file is complete before it takes the old one's place, so the process may be killed at any moment. Nothing
    else may write the journal meanwhile.

    Args:
        journal: Its lock is held.
        upto: Where a line ends. All of it is sent, and the positions are saved.
        header: For the new file.
        number: Of the entry to be written next.

    Returns:
        The new file, open for appending, and its header.
    """
    temporary = journal.path.with_suffix(UNFINISHED)
    if journal.size() - (upto - journal.base) > LONGEST_REST:
        return None
    try:
        with journal.path.open("rb") as old:
            old.seek(upto - journal.base)
            rest = old.read()
        first = next((line.number for line in journal.lines(upto) if line.number is not None), number)
        kept = {key: value for key, value in header.items() if key != "status"}
        lines, new = _fitted(kept | _status(journal) | {"first": first, "opened": Host.here().to_dict()}, upto)
        temporary.unlink(missing_ok=True)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except OSError:
        return None
    try:
        if os.write(file, lines + rest) < len(lines) + len(rest):
            raise OSError("the disk is full")
        os.fsync(file)
        os.replace(temporary, journal.path)
    except OSError:  # the old file still has everything
        os.close(file)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        return None
    return file, new


def sent_copies(journal: JournalReader, upto: int) -> Iterator[Entry]:
    """Yield entries with the copies of artifacts that were sent: before an offset, or before the file was last cut."""
    for named in journal.header.get("copies", {}).values():
        yield {"file": named}
    for line in journal.lines_with(b'"file"', upto):
        if line.entry is not None and "file" in line.entry:
            yield line.entry


def _fitted(header: dict[str, Any], upto: int) -> tuple[bytes, dict[str, Any]]:
    """The header's lines, after which the offset is ``upto``; their own length is part of what they say."""
    length, lines = 0, b""
    while len(lines) != length or not lines:
        length = len(lines)
        header = header | {"base": upto - length}
        lines = header_lines(header)
    return lines, header


def _status(journal: JournalReader) -> dict[str, str]:
    status = journal.last_status()
    return {} if status == "RUNNING" else {"status": status}
