"""Journals as others may write them: of format 1, edited by hand, or made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.journal.format import now, to_line


def old_journal(folder: Path, entries: list[dict[str, Any]], file: str = "old", **header: Any) -> Path:
    """A journal of format 1: without checksums and numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file}.jsonl"
    first = {"id": file, "experiment": "plugin", "tags": {}, "start": now(), "keep": False, "opened": {}, "t": now()}
    path.write_text("".join(json.dumps(line) + "\n" for line in [first | header, *entries]))
    return path


def metrics(steps: int, name: str = "loss") -> list[dict[str, Any]]:
    """One metric in each of so many steps, and a normal end."""
    return [
        *({"m": {name: float(step)}, "s": step, "t": 1000 + step} for step in range(steps)),
        {"status": "FINISHED", "t": now()},
    ]


def edit(journal: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Change every line of a journal, and give each a checksum that is right."""
    lines = []
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        entry.pop("crc", None)
        lines.append(to_line(dict(change(entry))))
    journal.write_bytes(b"".join(lines))


def replaced(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """For :func:`edit`: another text in place of one."""

    def change(entry: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = json.loads(json.dumps(entry).replace(old, new))
        return changed

    return change


def flip(file: Path, bit: int) -> None:
    """Flip one bit of a file."""
    raw = bytearray(file.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    file.write_bytes(raw)
