"""Rows: journals that moved to another folder or machine, and several processes on one folder or one run."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from pathlib import Path

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.children import Child
from experiments.reliability.prepared import NO_SERVER
from experiments.reliability.saying import synced
from experiments.reliability.training import noted, run_ids, train
from experiments.reliability.truth import Found, single
from experiments.reliability.workplace import Workplace

STEPS = 80
PAUSE = 0.005  # seconds a step
PATIENCE = 90  # seconds to wait for a training
NEW_NAMESPACES = 0x04000000 | 0x00020000  # of host name and of mounts (Linux)
PRIVATE, BIND = 0x40000 | 0x4000, 0x1000


def _moved(place: Workplace, case: str) -> Case:
    """The folder is moved, or copied, and sent from there."""
    place.store.empty()
    journal = place.prepared.copy_to(place.new_folder())
    name = journal.journal.stem
    if case == "sent half, then moved":
        _send_half(place, journal.journal)
    there = place.folder / f"elsewhere {case}"
    journal.folder.rename(there)
    said = synced(there, place.store.uri)
    return judge(case, [journal.header, *journal.logged], place.store.runs(), said, name)


def _send_half(place: Workplace, file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: len(lines) // 2]))
    synced(file.parent, place.store.uri)  # the status that it adds is followed by the rest: the run goes on
    with file.open("ab") as rest:
        rest.write(b"".join(lines[len(lines) // 2 :]))


def _other_machine(place: Workplace, case: str) -> Case:
    """A training on a machine of another name, which ends or is killed; its journal is sent from here."""
    if os.geteuid() != 0:
        return Case(case, "not run", "host names cannot be changed here")
    place.server.empty()
    folder = place.new_folder()
    folder.mkdir()
    steps = STEPS if case.startswith("ended") else 10**6
    child = place.children.start(_elsewhere, str(folder), NO_SERVER, steps)
    if case.startswith("ended"):
        child.wait(PATIENCE)
    else:
        _wait_for(folder, STEPS, child)
        child.kill()
    if "not on another machine" in child.said:
        return Case(case, "not run", child.said[-160:])
    ended = ["--ended"] if "--ended" in case else []
    said = synced(folder / "journal", place.server.uri, *ended)
    status = "FINISHED" if case.startswith("ended") else "KILLED" if ended else "RUNNING"
    logged = [*noted(folder), single("status", status)]
    runs = place.server.runs()
    last = max(int(step) for entry in noted(folder) for kind, _, step, *_ in entry if kind == "metric")
    return judge(case, logged, runs, said, optional=_beyond(runs, last))


def _beyond(runs: list[Found], last: int) -> list[frozenset[tuple[str, ...]]]:
    """The call during which a process was killed may be there."""
    return [frozenset([item]) for run in runs for item in run.items if item[0] == "metric" and item[2] == str(last + 1)]


def _elsewhere(folder: str, uri: str, steps: int) -> None:
    """Train on what looks like another machine: other host name, other boot."""
    system = ctypes.CDLL(None, use_errno=True)
    boot = Path(folder) / "boot_id"
    boot.write_text("00000000-aaaa-bbbb-cccc-000000000000\n")
    if system.unshare(NEW_NAMESPACES) != 0 or system.mount(None, b"/", None, PRIVATE, None) != 0:
        os.write(1, b"not on another machine: no permission\n")
        return
    socket.sethostname("another-machine")
    system.mount(str(boot).encode(), b"/proc/sys/kernel/random/boot_id", None, BIND, None)
    train(folder, uri, steps, pause=PAUSE)


def _two_loggers(place: Workplace, case: str) -> Case:
    """Two trainings at once with one folder of journals."""
    place.server.empty()
    both = [place.new_folder() for _ in range(2)]
    journal = place.new_folder()
    uri = place.server.uri if case.startswith("up") else NO_SERVER
    children = []
    for folder in both:
        folder.mkdir()
        children.append(place.children.start(_train_into, str(folder), uri, str(journal), None))
    statuses = [child.wait(PATIENCE) for child in children]
    said = "".join(child.said for child in children)
    if set(statuses) != {0}:
        return _failed(case, children, statuses)
    if journal.exists():
        said += synced(journal, place.server.uri)
    runs = place.server.runs()
    if len(runs) != 2:
        return Case(case, "twice" if len(runs) > 2 else "silent", f"{len(runs)} runs for two trainings")
    for folder, run in zip(both, _matched(both, runs), strict=True):
        result = judge(case, [*noted(folder), single("status", "FINISHED")], [run], said)
        if result.outcome != "complete":
            return result
    return result


def _matched(folders: list[Path], runs: list[Found]) -> list[Found]:
    """Order runs like the folders: a training notes the id of its journal or of its run."""
    known = [set(run_ids(folder)) for folder in folders]
    first = next((run for run in runs if {run.run_id, *_journal_ids(run)} & known[0]), runs[0])
    return [first, next(run for run in runs if run is not first)]


def _journal_ids(run: Found) -> list[str]:
    return [item[2] for item in run.items if item[:2] == ("tag", "grad.journal")]


def _train_into(folder: str, uri: str, journal: str, run_id: str | None, attempt: int = 0) -> None:
    train(folder, uri, STEPS, attempt, run_id, pause=PAUSE, journal_dir=journal)


def _two_processes(place: Workplace, case: str) -> Case:
    """A second process goes on with a run while the first one still logs to it."""
    place.server.empty()
    both, journal = [place.new_folder() for _ in range(2)], place.new_folder()
    for folder in both:
        folder.mkdir()
    uri = place.server.uri if case.startswith("up") else NO_SERVER
    first = place.children.start(_train_into, str(both[0]), uri, str(journal), None)
    _wait_for(both[0], 1, first)
    second = place.children.start(_train_into, str(both[1]), uri, str(journal), run_ids(both[0])[0], 1)
    statuses = [first.wait(PATIENCE), second.wait(PATIENCE)]
    if set(statuses) != {0}:
        return _failed(case, [first, second], statuses)
    said = first.said + second.said
    if journal.exists():
        said += synced(journal, place.server.uri)
    logged = [*noted(both[0]), *noted(both[1]), single("status", "FINISHED")]
    return judge(case, logged, place.server.runs(), said)


def _sync_meanwhile(place: Workplace, case: str) -> Case:
    """``sync`` is called again and again, by two processes, while a training logs."""
    place.server.empty()
    folder = place.new_folder()
    folder.mkdir()
    child = place.children.start(train, str(folder), place.server.uri, STEPS, 0, None, PAUSE)
    _wait_for(folder, 1, child)
    said = ""
    while child.is_alive:
        other = place.children.start(_sync, str(folder / "journal"), place.server.uri)
        if (folder / "journal").is_dir():
            said += synced(folder / "journal", place.server.uri)
        other.wait(30)
    if child.wait(PATIENCE) != 0:
        return _failed(case, [child], [child.wait(0)])
    said = said.replace("exit status 1", "") + child.said
    if (folder / "journal").is_dir():
        said += synced(folder / "journal", place.server.uri)
    return judge(case, [*noted(folder), single("status", "FINISHED")], place.server.runs(), said)


def _two_syncs(place: Workplace, case: str) -> Case:
    """Three processes send one journal at the same moment."""
    place.server.empty()
    journal = place.prepared.copy_to(place.new_folder())
    children = [place.children.start(_sync, str(journal.folder), place.server.uri) for _ in range(3)]
    statuses = [child.wait(60) for child in children]
    if None in statuses:
        return _failed(case, children, statuses)
    said = "".join(child.said for child in children) + synced(journal.folder, place.server.uri)
    return judge(case, [journal.header, *journal.logged], place.server.runs(), said, journal.journal.stem)


def _sync(folder: str, uri: str) -> None:
    from grad_callbacks.tracking.cli import main

    if Path(folder).is_dir():
        main(["sync", folder, "--tracking-uri", uri])


def _wait_for(folder: Path, count: int, child: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(noted(folder)) <= count and child.is_alive and time.monotonic() < deadline:
        time.sleep(0.02)


def _failed(case: str, children: list[Child], statuses: list[int | None]) -> Case:
    for child in children:
        child.kill()
    said = " ".join(child.said[-200:] for child in children)
    return Case(case, "hung" if None in statuses else "ended", f"exit statuses {statuses}: {said}")


ROWS = [
    Row(
        "sharing",
        "journal moved",
        "to another folder, before or within sending",
        ["whole", "sent half, then moved"],
        _moved,
    ),
    Row(
        "sharing",
        "another machine",
        "logged on a machine of another name and boot, sent from this one",
        ["ended, sync", "killed, sync", "killed, sync --ended"],
        _other_machine,
        quick=3,
    ),
    Row(
        "sharing",
        "two trainings, one folder",
        "at the same time, with and without a server",
        ["up 1", "up 2", "down 1", "down 2"],
        _two_loggers,
        quick=2,
    ),
    Row(
        "sharing",
        "two processes, one run",
        "the second goes on with the run while the first logs",
        ["up 1", "up 2", "down 1", "down 2"],
        _two_processes,
        quick=2,
    ),
    Row(
        "sharing",
        "`sync` while logging",
        "by two processes, again and again",
        ["1", "2", "3"],
        _sync_meanwhile,
        quick=1,
    ),
    Row("sharing", "three `sync` at once", "on one folder", [str(i) for i in range(8)], _two_syncs, quick=2),
]
