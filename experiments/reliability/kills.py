"""Rows: trainings that are killed, and journals that the disk has forgotten in part."""

from __future__ import annotations

import random
import time
from pathlib import Path

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.prepared import NO_SERVER, prepare
from experiments.reliability.saying import listening, synced
from experiments.reliability.stores import Store
from experiments.reliability.training import in_flight, noted, run_ids, train
from experiments.reliability.truth import metrics, single
from experiments.reliability.workplace import Workplace

STEPS = 150
PAUSE = 0.004  # seconds a step, so that a kill meets sending, logging and checkpoints
LATEST = 1.2  # seconds after its first note at which a training is killed
PATIENCE = 60  # seconds to wait for a process


def _killed_once(place: Workplace, case: str) -> Case:
    """Kill a training at a random moment, then send its journal."""
    return _killed(place, case, times=1, resume=False, store=place.server)


def _killed_offline(place: Workplace, case: str) -> Case:
    return _killed(place, case, times=1, resume=False, store=None)


def _killed_and_resumed(place: Workplace, case: str) -> Case:
    """Kill it up to three times, each time going on from the last checkpoint, and let it end at last."""
    return _killed(place, case, times=1 + int(case) % 3, resume=True, store=place.server)


def _killed(place: Workplace, case: str, times: int, resume: bool, store: Store | None) -> Case:
    place.server.empty()
    folder = place.new_folder()
    folder.mkdir()
    uri = NO_SERVER if store is None else store.uri
    chance, said, run_id = random.Random(int(case)), "", None
    for attempt in range(times):
        victim = place.children.start(train, str(folder), uri, 10**6, attempt, run_id, PAUSE)
        if not _wait_for_note(folder, attempt):
            victim.kill()
            return Case(case, "hung", "no training step", victim.said[-160:])
        time.sleep(chance.uniform(0.0, LATEST))
        victim.kill()
        said += victim.said
        run_id = (run_ids(folder) or [None])[-1]
    status = "KILLED"
    if resume:
        last = place.children.start(train, str(folder), uri, _last_step(folder) + STEPS, times, run_id)
        if last.wait(PATIENCE) != 0:
            last.kill()
            return Case(case, "ended" if last.wait(0) == 1 else "hung", last.said[-300:], "")
        said, status = said + last.said, "FINISHED"
    said += synced(folder / "journal", place.server.uri)
    logged = [*noted(folder), single("status", status), single("experiment", "trained"), single("name", "kept")]
    return judge(case, logged, place.server.runs(), said, optional=in_flight(folder))


def _wait_for_note(folder: Path, attempt: int) -> bool:
    deadline, start = time.monotonic() + PATIENCE, f"m {attempt} "
    while time.monotonic() < deadline:
        notes = folder / "notes"
        if notes.exists() and any(line.startswith(start) for line in notes.read_text().splitlines()):
            return True
        time.sleep(0.02)
    return False


def _last_step(folder: Path) -> int:
    return max(int(step) for entry in noted(folder) for kind, _, step, *_ in entry if kind == "metric")


def _power_cut(place: Workplace, case: str) -> Case:
    """Send all of a journal, cut its end as a power cut does, go on with the run, and send again."""
    from grad_callbacks.tracking import JournaledMLFlowLogger

    place.store.empty()
    lost, more = (int(part) for part in case.split("+"))
    journal = prepare(place.new_folder(), place.store.uri)
    synced(journal.folder, place.store.uri)  # what was not sent while logging
    lines = journal.lines()
    journal.journal.write_bytes(b"".join(lines[: len(lines) - lost]))
    with listening() as text:
        run_id = place.store.runs()[0].run_id
        logger = JournaledMLFlowLogger(
            "reliability", tracking_uri=place.store.uri, run_id=run_id, journal_dir=journal.folder, finalize_timeout=5
        )
        logged = list(journal.logged)
        for step in range(100, 100 + more):
            logger.log_metrics({"loss": step + 0.5}, step)
            logged.append(metrics({"loss": step + 0.5}, step))
        logger.finalize("success")
        logger.close()
    said = text.getvalue() + (synced(journal.folder, place.store.uri) if list(journal.folder.glob("*.jsonl")) else "")
    return judge(case, [journal.header, *logged], place.store.runs(), said)


def _power_cut_alone(place: Workplace, case: str) -> Case:
    """Send all of a journal, cut its end, and send again: the server has everything, and keeps it."""
    place.store.empty()
    journal = prepare(place.new_folder(), place.store.uri)
    synced(journal.folder, place.store.uri)
    data = journal.journal.read_bytes()
    journal.journal.write_bytes(data[: len(data) - int(case)])
    said = synced(journal.folder, place.store.uri, "--ended")
    return judge(case, [journal.header, *journal.logged], place.store.runs(), said)


ROWS = [
    Row(
        "kills",
        "SIGKILL, then `sync`",
        "a Trainer is killed at a random moment, server up",
        [str(seed) for seed in range(30)],
        _killed_once,
        quick=4,
    ),
    Row(
        "kills",
        "SIGKILL without a server, then `sync`",
        "the same, server down until later",
        [str(seed) for seed in range(100, 115)],
        _killed_offline,
        quick=2,
    ),
    Row(
        "kills",
        "SIGKILL and resumed",
        "killed one to three times, resumed from the last checkpoint each time, then to its end",
        [str(seed) for seed in range(200, 218)],
        _killed_and_resumed,
        quick=2,
    ),
    Row(
        "kills",
        "journal shorter than what was sent, resumed",
        "a power cut takes lines that the server has; more steps are logged",
        [f"{lost}+{more}" for lost in (1, 2, 5, 20, 40, 46) for more in (1, 5, 30, 100)],
        _power_cut,
        quick=6,
    ),
    Row(
        "kills",
        "journal shorter than what was sent",
        "a power cut takes bytes that the server has; then `sync`",
        [str(cut) for cut in (1, 10, 30, 60, 100, 500, 1000, 2000)],
        _power_cut_alone,
        quick=4,
    ),
]
