"""The journal's file format: JSON lines, of which the first is a header."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
SUFFIX = ".jsonl"
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})  # MLflow's statuses of a run that has ended


def to_line(entry: Entry) -> bytes:
    """Return an entry as one line of the file."""
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def to_header_line(header: Mapping[str, Any]) -> bytes:
    """Return the line that a process writes when it opens the file."""
    return json.dumps(header).encode() + b"\n"


def parse(line: bytes) -> Entry:
    """Return the entry of a line; empty if the line is incomplete or no entry."""
    try:
        entry = json.loads(line)
    except ValueError:  # cut off when its process was killed or its disk was full
        return {}
    return entry if isinstance(entry, dict) else {}


def read_header(path: Path) -> dict[str, Any]:
    """Return the first line of a journal; empty if the file is no journal."""
    try:
        with path.open("rb") as file:
            return parse(file.readline())
    except OSError:
        return {}


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
