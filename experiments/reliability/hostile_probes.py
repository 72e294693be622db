"""What hostile journals try: harmless probes, each beside files that are nobody's business."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECRET = "not for the server"
NAME = "0123456789abcdef0123456789abcdef"


class Trap:
    """A folder with journals from somebody else, beside files that are nobody's business.

    Args:
        base: A folder that does not exist.

    Attributes:
        journals: What the user has received.
        victim: Files of the user's own.
    """

    def __init__(self, base: Path) -> None:
        self.base, self.journals, self.victim = base, base / "received" / "journals", base / "own"
        self.journals.mkdir(parents=True)
        self.victim.mkdir()
        self.secret = self.victim / "secret.txt"
        self.secret.write_text(SECRET)
        (base / "received" / "other.txt").write_text("other")
        self.header: dict[str, Any] = {"id": NAME, "uri": "", "experiment": "hostile", "name": "h", "tags": {}}
        self.header |= {"start": 1_700_000_000_000, "opened": {"name": "far-away", "boot": "0", "pid": 1}, "t": 0}
        self.entries: list[dict[str, Any]] = [{"m": {"loss": 1.5}, "s": 0, "t": 1_700_000_000_000}]
        self.name = NAME
        self.before = ""

    @property
    def copies(self) -> Path:
        """The folder that holds the journal's copies of artifacts."""
        return self.journals / NAME

    def artifact(self, file: str, to: str = "") -> None:
        """Add an entry of an artifact."""
        self.entries.append({"file": file, "bytes": len(SECRET), "to": to})

    def copied(self, name: str = "x.txt") -> Path:
        """Write a copy of an artifact that is in order."""
        path = self.copies / "aaaa" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("fine")
        return path

    def write(self) -> None:
        """Write the journal, and remember what the folders hold."""
        lines = [self.header, *self.entries, {"status": "FINISHED", "t": 1_700_000_000_001}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.journals / f"{self.name}.jsonl").write_text(text)
        self.before = self._own_files()

    def harm(self) -> str:
        """What was changed beyond the journals; empty if nothing was."""
        after = self._own_files()
        return "" if after == self.before else f"files beside the journals changed: {self.before} -> {after}"

    def _own_files(self) -> str:
        files = [self.secret, *sorted(self.victim.rglob("*")), *sorted((self.base / "received").glob("*"))]
        return " ".join(
            f"{file.name}:{file.stat().st_size if file.is_file() else '-'}" for file in files if file.exists()
        )


def _absolute(trap: Trap) -> None:
    trap.artifact(str(trap.secret))


def _relative(trap: Trap) -> None:
    trap.copies.mkdir()
    trap.artifact("../../../own/secret.txt")


def _through_a_folder(trap: Trap) -> None:
    trap.copied()
    trap.artifact("aaaa/../../../../own/secret.txt")


def _linked_file(trap: Trap) -> None:
    trap.copied().unlink()
    (trap.copies / "aaaa" / "x.txt").symlink_to(trap.secret)
    trap.artifact("aaaa/x.txt")


def _linked_folder(trap: Trap) -> None:
    trap.copies.mkdir()
    (trap.copies / "aaaa").symlink_to(trap.victim)
    trap.artifact("aaaa/secret.txt")


def _linked_copies(trap: Trap) -> None:
    trap.copies.symlink_to(trap.victim)
    trap.artifact("secret.txt")


def _linked_copies_deeper(trap: Trap) -> None:
    (trap.victim / "aaaa").mkdir()
    (trap.victim / "aaaa" / "secret.txt").write_text(SECRET)
    trap.copies.symlink_to(trap.victim)
    trap.artifact("aaaa/secret.txt")


def _folder_as_file(trap: Trap) -> None:
    trap.artifact(str(trap.victim))


def _to_up(trap: Trap) -> None:
    trap.copied()
    trap.artifact("aaaa/x.txt", "../../../../own")


def _to_absolute(trap: Trap) -> None:
    trap.copied()
    trap.artifact("aaaa/x.txt", str(trap.victim))


def _artifact_location(trap: Trap) -> None:
    trap.header["artifact_location"] = trap.victim.as_uri()
    trap.copied()
    trap.artifact("aaaa/x.txt")


def _linked_lock(trap: Trap) -> None:
    (trap.journals / f"{NAME}.lock").symlink_to(trap.secret)


def _linked_sent(trap: Trap) -> None:
    (trap.journals / f"{NAME}.sent").symlink_to(trap.secret)


def _linked_unfinished_sent(trap: Trap) -> None:
    (trap.journals / f"{NAME}.sent~").symlink_to(trap.secret)


def _dots(trap: Trap) -> None:
    trap.name = ".."


def _dot(trap: Trap) -> None:
    trap.name = "."


def _deferred(trap: Trap) -> None:
    states = {"*": {"run_id": None, "offset": 0, "deferred": [{"file": str(trap.secret), "bytes": 1, "to": ""}]}}
    (trap.journals / f"{NAME}.sent").write_text(json.dumps(states))


def _id_with_quote(trap: Trap) -> None:
    trap.header["id"] = "x' AND tags.`grad.journal` != 'y"


def _id_upward(trap: Trap) -> None:
    trap.header["id"] = "../../own/secret"


def _opened_is_text(trap: Trap) -> None:
    trap.header["opened"] = "text"


def _tags_are_a_list(trap: Trap) -> None:
    trap.header["tags"] = [1, 2]


def _deep(trap: Trap) -> None:
    trap.entries.append({"p": {"deep": "x"}})
    trap.header["tags"] = {"deep": "[" * 5000}


PROBES: dict[str, Callable[[Trap], None]] = {
    "absolute path": _absolute,
    "path upward": _relative,
    "path upward through a folder": _through_a_folder,
    "link to a file": _linked_file,
    "link to a folder": _linked_folder,
    "link in place of the copies": _linked_copies,
    "link in place of the copies, deeper": _linked_copies_deeper,
    "folder in place of a file": _folder_as_file,
    "target upward": _to_up,
    "target absolute": _to_absolute,
    "artifact location": _artifact_location,
    "lock is a link": _linked_lock,
    "`.sent` is a link": _linked_sent,
    "`.sent~` is a link": _linked_unfinished_sent,
    "named `...jsonl`": _dots,
    "named `..jsonl`": _dot,
    "deferred absolute path": _deferred,
    "id with a quote": _id_with_quote,
    "id upward": _id_upward,
    "opened is text": _opened_is_text,
    "tags are a list": _tags_are_a_list,
    "deep text": _deep,
}
