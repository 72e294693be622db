"""Copies of artifacts, kept until a server has them."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

from grad_callbacks.tracking.journal.format import Entry


class ArtifactCopies:
    """The folder of a journal with copies of artifacts.

    Args:
        folder: Where copies are written; made when the first one is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bytes = -1  # counted when first needed

    def add(self, local: Path, limit: int) -> Entry:
        """Copy a file and return the fields of its entry: ``file``, the copy's path, and ``bytes``.

        Where the folder takes no more, the copy goes to the system's temporary folder.

        Args:
            local: The file.
            limit: Bytes that all copies may take.

        Raises:
            OSError: If the file cannot be read, or there is no disk space for a copy.
        """
        size = local.stat().st_size
        place = Path(uuid.uuid4().hex[:12]) / local.name
        try:
            if self.bytes() + size > limit:
                raise OSError("the journal has reached its limit of disk space")
            (self.folder / place).parent.mkdir(parents=True)
            shutil.copyfile(local, self.folder / place)
        except OSError:
            shutil.rmtree((self.folder / place).parent, ignore_errors=True)
            if not local.exists():
                raise
            return {"file": str(_temporary_copy(local)), "bytes": size}
        self._bytes += size
        return {"file": place.as_posix(), "bytes": size}

    def path_of(self, entry: Entry) -> Path:
        """Return the path of an entry's copy."""
        return self.folder / str(entry["file"])  # an absolute path stays one

    def bytes(self) -> int:
        """Bytes of all copies."""
        if self._bytes < 0:
            self._bytes = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return self._bytes

    def release(self, entry: Entry) -> None:
        """Remove an entry's copy and count its bytes as free."""
        copy = self.path_of(entry)
        size = copy.stat().st_size if copy.exists() else 0
        self.remove(entry)
        self._bytes -= size

    def remove(self, entry: Entry) -> None:
        """Remove an entry's copy."""
        shutil.rmtree(self.path_of(entry).parent, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _temporary_copy(local: Path) -> Path:
    copy = Path(tempfile.mkdtemp(prefix="grad-callbacks-")) / local.name
    try:
        shutil.copyfile(local, copy)
    except OSError:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise
    return copy
