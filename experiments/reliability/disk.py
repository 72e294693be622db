"""Rows: a disk that is full, from the start, from the middle on, or for a while, with the server up or down."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.prepared import NO_SERVER
from experiments.reliability.saying import synced
from experiments.reliability.training import noted, train, write_only
from experiments.reliability.truth import ANY, Entry, metrics, single
from experiments.reliability.workplace import Workplace

STEPS = 120
PAUSE = 0.005  # seconds a step
PATIENCE = 90  # seconds to wait for a training
UNNOTED = 3  # lines that the logger may write by itself: header, git commit, status


def _on_small_disk(place: Workplace, case: str) -> Case:
    """A Trainer whose journal is on a file system of some KB, with a real server or without."""
    size, filled, server = case.split()
    folder = place.new_folder()
    (folder / "journal").mkdir(parents=True)
    if not _can_mount():
        return Case(case, "not run", "file systems cannot be mounted here")
    place.server.empty()
    uri = place.server.uri if server == "up" else NO_SERVER
    with _mounted(folder / "journal", size):
        if filled != "empty":
            _fill(folder / "journal", leave=0 if filled == "full" else int(filled))
        child = place.children.start(train, str(folder), uri, STEPS, 0, None, PAUSE)
        status = child.wait(PATIENCE)
        if status != 0:
            child.kill()
            return Case(case, "hung" if status is None else "ended", child.said[-300:])
        _make_room(folder / "journal")
        said = child.said + synced(folder / "journal", place.server.uri)
        return _judged(place, case, noted(folder), said)


def _full_for_a_while(place: Workplace, case: str) -> Case:
    """The disk fills up during the training, and has room again before its end."""
    size, server = case.split()
    folder = place.new_folder()
    (folder / "journal").mkdir(parents=True)
    if not _can_mount():
        return Case(case, "not run", "file systems cannot be mounted here")
    place.server.empty()
    uri = place.server.uri if server == "up" else NO_SERVER
    with _mounted(folder / "journal", size):
        child = place.children.start(train, str(folder), uri, STEPS, 0, None, 0.02)
        deadline = time.monotonic() + PATIENCE
        while len(noted(folder)) < STEPS * 3 // 4 and child.is_alive and time.monotonic() < deadline:
            time.sleep(0.02)
        _make_room(folder / "journal")
        status = child.wait(PATIENCE)
        if status != 0:
            child.kill()
            return Case(case, "hung" if status is None else "ended", child.said[-300:])
        said = child.said + synced(folder / "journal", place.server.uri)
        return _judged(place, case, noted(folder), said)


def _with_a_limit(place: Workplace, case: str) -> Case:
    """A logger in a process none of whose files can grow beyond some bytes."""
    limit, server = case.split()
    place.server.empty()
    folder = place.new_folder()
    folder.mkdir()
    uri = place.server.uri if server == "up" else NO_SERVER
    child = place.children.start(write_only, str(folder), uri, STEPS, file_limit=int(limit))
    status = child.wait(PATIENCE)
    if status != 0:
        child.kill()
        return Case(case, "hung" if status is None else "ended", child.said[-300:])
    said = child.said
    if (folder / "journal").is_dir():
        said += synced(folder / "journal", place.server.uri)
    logged: list[Entry] = [metrics({"value": step}, step) for step in range(STEPS)]
    logged += [single("param", "lr", "0.1"), single("artifact", "context/environment.yaml", ANY)]
    return _judged(place, case, logged, said)


def _judged(place: Workplace, case: str, logged: list[Entry], said: str) -> Case:
    logged = [*logged, single("status", "FINISHED")]
    runs = place.server.runs()
    first = judge(case, logged, runs, said)
    if first.outcome not in ("silent", "stuck"):
        return first
    # The logger counts the lines that it writes by itself too, which are not among what was noted.
    missing = int(first.detail.split()[0])
    return judge(case, logged, runs, said, also=frozenset(range(missing, missing + UNNOTED + 1)))


def _can_mount() -> bool:
    return os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", "size=4k", "none", "/mnt") and _unmount(Path("/mnt"))


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def _unmount(folder: Path) -> bool:
    return subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False).returncode == 0


@contextmanager
def _mounted(folder: Path, size: str) -> Iterator[None]:
    assert _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


def _fill(folder: Path, leave: int) -> None:
    """Fill a small disk with a file, but for some bytes, in pages of 4 KB."""
    with (folder / "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() // 4096 * 4096 - leave))


def _make_room(folder: Path) -> None:
    (folder / "full").unlink(missing_ok=True)
    assert _mount("-o", "remount,size=64m", str(folder))


ROWS = [
    Row(
        "disk",
        "disk full, server up",
        "a Trainer whose journal is on a small file system: full from the start, or after some KB",
        [
            "16k full up",
            "16k empty up",
            "32k 4096 up",
            "32k 8192 up",
            "32k empty up",
            "64k 16384 up",
            "64k 4096 up",
            "20k empty up",
        ],
        _on_small_disk,
        quick=2,
    ),
    Row(
        "disk",
        "disk full, server down",
        "the same without a server; later there is room, the server is up, and `sync` is called",
        [
            "16k full down",
            "16k empty down",
            "32k 4096 down",
            "32k 8192 down",
            "32k empty down",
            "64k 16384 down",
            "64k 4096 down",
            "20k empty down",
        ],
        _on_small_disk,
        quick=2,
    ),
    Row(
        "disk",
        "disk full for a while",
        "full from some KB on, with room again for the last quarter of the training",
        ["12k up", "16k up", "24k up", "12k down", "16k down", "24k down"],
        _full_for_a_while,
        quick=2,
    ),
    Row(
        "disk",
        "file size limited",
        "no file of the process can grow beyond some bytes (`RLIMIT_FSIZE`)",
        [f"{limit} {server}" for server in ("up", "down") for limit in (0, 100, 500, 1000, 2000, 4000, 6000)],
        _with_a_limit,
        quick=4,
    ),
]
