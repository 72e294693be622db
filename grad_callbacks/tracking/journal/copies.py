"""Copies of artifacts, kept until a server has them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
import zlib
from pathlib import Path, PurePosixPath

from grad_callbacks.tracking.journal.descriptions import shown
from grad_callbacks.tracking.journal.format import Entry

CHUNK = 2**20  # bytes that are read at once
_FOLDER = re.compile(r"[0-9a-f]{12}")  # of one copy
_TEMPORARY = "grad-callbacks-"  # how the folders begin that are made in the system's temporary folder


class UnsafePath(ValueError):
    """An entry names a file that is no copy of its journal, or a place that is outside of the run's artifacts."""


class ArtifactCopies:
    """The folder of a journal with copies of artifacts.

    A journal may come from anybody, so only what :meth:`add` would have written is ever read or removed:
    ``<12 hexadecimal digits>/<name>`` in this folder, or in a temporary folder of this user, and nothing behind a link.

    Args:
        folder: Where copies are written; made when the first one is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bytes = -1  # counted when first needed

    def add(self, local: Path, limit: int) -> Entry:
        """Copy a file and return the fields of its entry: ``file``, the copy's path, ``bytes`` and ``crc32``.

        Where the folder takes no more, the copy goes to the system's temporary folder.

        Args:
            local: The file.
            limit: Bytes that all copies may take.

        Raises:
            OSError: If the file cannot be read, or is a pipe or device, or there is no disk space for a copy.
        """
        size = local.stat().st_size
        if not local.is_file():
            raise OSError("it is no file")
        place = Path(uuid.uuid4().hex[:12]) / local.name
        try:
            if self.bytes() + size > limit:
                raise OSError("the journal has reached its limit of disk space")
            if self.folder.is_symlink():
                raise OSError("the folder for copies is a link")
            (self.folder / place).parent.mkdir(parents=True)
            checksum = _copied(local, self.folder / place)
        except OSError:
            shutil.rmtree((self.folder / place).parent, ignore_errors=True)
            if not local.exists():
                raise
            temporary, checksum = _temporary_copy(local)
            return {"file": str(temporary), "bytes": size, "crc32": checksum}
        self._bytes += size
        return {"file": place.as_posix(), "bytes": size, "crc32": checksum}

    def path_of(self, entry: Entry) -> Path:
        """Return the path of an entry's copy, which may be gone.

        Raises:
            UnsafePath: If it is not where a copy of this journal can be, or there is a link on the way.
        """
        named = entry["file"]
        if not isinstance(named, str) or "\0" in named:
            raise UnsafePath(f"{shown(named)} is no file")
        path = Path(named)
        if path.is_absolute():
            if not _is_own_temporary(path.parent):
                raise UnsafePath(f"{shown(named)} is outside of the journal's folder")
        elif len(path.parts) == 2 and _FOLDER.fullmatch(path.parts[0]) and path.parts[1] != "..":
            path = self.folder / path
        else:
            raise UnsafePath(f"{shown(named)} is no copy that a journal makes")
        if self.folder.is_symlink() or path.parent.is_symlink() or path.is_symlink():
            raise UnsafePath(f"{shown(named)} is a link")
        if path.exists() and not path.is_file():
            raise UnsafePath(f"{shown(named)} is no file")
        return path

    def bytes(self) -> int:
        """Bytes of all copies in the folder."""
        if self._bytes < 0:
            self._bytes = sum(file.lstat().st_size for file in self._files())
        return self._bytes

    def count(self) -> int:
        """How many copies there are in the folder."""
        return len(self._files())

    def remove(self, entry: Entry) -> None:
        """Remove an entry's copy, if it is one of this journal; the bytes in the folder count as free."""
        try:
            copy = self.path_of(entry)
        except UnsafePath:
            return
        if not copy.exists():
            return
        size = copy.stat().st_size
        copy.unlink(missing_ok=True)
        _remove_if_empty(copy.parent)
        if self._bytes >= 0 and copy.parent.parent == self.folder:
            self._bytes -= size

    def remove_all(self) -> None:
        """Remove all copies, and the folder if nothing else is in it."""
        for file in list(self._files()):
            file.unlink(missing_ok=True)
            _remove_if_empty(file.parent)
        if not self.folder.is_symlink():
            _remove_if_empty(self.folder)
        self._bytes = -1

    def _files(self) -> list[Path]:
        if self.folder.is_symlink() or not self.folder.is_dir():
            return []
        places = [place for place in self.folder.iterdir() if _FOLDER.fullmatch(place.name) and not place.is_symlink()]
        return [file for place in places if place.is_dir() for file in place.iterdir() if not file.is_dir()]


def safe_place(folder: object) -> str:
    """Return the folder within a run's artifacts that an entry names.

    Raises:
        UnsafePath: If it is not within them.
    """
    if not isinstance(folder, str) or "\0" in folder or "\\" in folder or ":" in folder.split("/")[0]:
        raise UnsafePath(f"{shown(folder)} is no folder of artifacts")
    place = PurePosixPath(folder)
    if place.is_absolute() or ".." in place.parts:
        raise UnsafePath(f"{shown(folder)} is outside of the run's artifacts")
    return "" if folder in ("", ".") else str(place)


def artifact_path(entry: Entry) -> str:
    """Return the path of an entry's file within the run's artifacts."""
    return "/".join(filter(None, (str(entry["to"]), Path(str(entry["file"])).name)))


def _is_own_temporary(folder: Path) -> bool:
    """True if it is a folder that :func:`_temporary_copy` has made: only this user's processes can have."""
    if folder.parent != Path(tempfile.gettempdir()) or not folder.name.startswith(_TEMPORARY):
        return False
    try:
        return folder.lstat().st_uid == os.getuid() if hasattr(os, "getuid") else True
    except OSError:
        return True  # it is gone


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def is_whole(copy: Path, entry: Entry) -> bool:
    """True if the copy is what was logged; entries of format 1 do not say."""
    return "crc32" not in entry or entry["crc32"] == _checksum(copy)


def _copied(local: Path, copy: Path) -> str:
    """Copy a file, and return the checksum of what was read."""
    checksum = 0
    with local.open("rb") as source, copy.open("xb") as target:
        while chunk := source.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
            target.write(chunk)
    return f"{checksum:08x}"


def _checksum(file: Path) -> str:
    checksum = 0
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return f"{checksum:08x}"


def _temporary_copy(local: Path) -> tuple[Path, str]:
    copy = Path(tempfile.mkdtemp(prefix=_TEMPORARY)) / local.name
    try:
        return copy, _copied(local, copy)
    except OSError:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise
