"""Journals of which nothing can be sent: what is known of them, and what the user can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grad_callbacks.tracking.journal.copies import ArtifactCopies
from grad_callbacks.tracking.journal.format import SUFFIX
from grad_callbacks.tracking.journal.header import HEAD, UnreadableJournal, checked_header, journal_files
from grad_callbacks.tracking.journal.lock import JournalLock


def unreadable(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the journals in a folder that cannot be read, each with the reason; an empty one if its process runs."""
    for path in journal_files(folder):
        if _is_blank(path):
            yield path, "" if _is_in_use(path) else f"it is empty: {_what_is_left(path)}"
            continue
        try:
            checked_header(path)
        except UnreadableJournal as error:
            yield path, str(error)
    for copies in sorted(folder.iterdir()) if folder.is_dir() else ():
        path = copies.with_name(f"{copies.name}{SUFFIX}")
        # The copies come last: a process that removes a journal removes them first.
        if copies.is_dir() and not path.exists() and not _is_in_use(path) and ArtifactCopies(copies).count():
            yield path, f"it is gone: {_what_is_left(path)}"


def _what_is_left(path: Path) -> str:
    count = ArtifactCopies(path.with_suffix("")).count()
    if not count:
        return "nothing of its run is left. Take the file from a backup, or remove it"
    copies = "1 copy of an artifact" if count == 1 else f"{count} copies of artifacts"
    return (
        f"nothing of its run is left but {copies} in {path.with_suffix('').name}. "
        "Take the file from a backup, or remove what is left"
    )


def _is_blank(path: Path) -> bool:
    """True if there is nothing in a file: it was cut to nothing, or holds the zeros that a power cut leaves."""
    if path.is_symlink():
        return False
    try:
        with path.open("rb") as file:
            return not any(chunk.strip(b"\0\r\n\t ") for chunk in iter(lambda: file.read(HEAD), b""))
    except OSError:
        return False


def _is_in_use(path: Path) -> bool:
    """True if a process has the lock; no lock file is made."""
    lock = JournalLock(path)
    if not lock.path.exists():
        return False
    is_free = lock.take()
    lock.release()
    return not is_free
