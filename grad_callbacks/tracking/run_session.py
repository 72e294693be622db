"""A run from its first entry to its end: its journal, its client and the thread that sends it."""

from __future__ import annotations

import logging
import shlex
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grad_callbacks.tracking.context import hydra_config, record_config, record_environment
from grad_callbacks.tracking.ending import ENDED_TAG, Ending, ending_of
from grad_callbacks.tracking.journal.client import JournalingClient
from grad_callbacks.tracking.journal.entries import status_entry, tags_entry
from grad_callbacks.tracking.journal.format import ENDED, SUFFIX, Entry, now
from grad_callbacks.tracking.journal.header import is_id
from grad_callbacks.tracking.journal.journal import Journal, journals
from grad_callbacks.tracking.journal.ownership import signed
from grad_callbacks.tracking.journal.sender import Sender
from grad_callbacks.tracking.journal.sync import clean_up
from grad_callbacks.tracking.journal.values import storable, text_of
from grad_callbacks.tracking.journal.writer import Writer
from grad_callbacks.tracking.secrets.masking import mask, mask_address

log = logging.getLogger("grad_callbacks")

SQLITE_TIMEOUT = 60.0  # seconds to wait at least for an SQLite file: creating its tables is slow on a busy machine


@dataclass(frozen=True)
class RunSettings:
    """How a run is logged; see the arguments of ``JournaledMLFlowLogger``.

    Attributes:
        tags: The user's, unmasked.
    """

    tracking_uri: str
    experiment: str
    artifact_location: str | None
    name: str | None
    tags: Mapping[str, Any]
    journal_dir: Path
    probe_timeout: float
    finalize_timeout: float
    disk_limit: int
    keep_journal: bool


class RunSession:
    """Logs one run, until it is closed.

    Args:
        settings: How it is logged.
        run_id: Continues this run, given by the server's id or the journal's; None begins a new run.

    Attributes:
        client: Writes into the journal.
    """

    def __init__(self, settings: RunSettings, run_id: str | None) -> None:
        self._settings = settings
        journal = _open_journal(settings, run_id)
        self._is_fresh = not journal.path.exists() and "run_id" not in journal.header
        journal.open_for_writing()
        on_connected = partial(_clean_up, settings.journal_dir, journal)
        self._writer = Writer(journal, settings.tracking_uri, self._is_fresh, on_connected)
        self.client = JournalingClient(settings.tracking_uri, self._writer)
        self._error_before = _last_uncaught_error()

    def start(self) -> None:
        """Start sending, and wait ``probe_timeout`` seconds at most for the run's id on the server."""
        if not self._is_fresh:
            self._writer.record(status_entry("RUNNING"))
            self._writer.record({"untag": ENDED_TAG})  # of the part before
        timeout = self._settings.probe_timeout
        is_local = self._settings.tracking_uri.startswith("sqlite:")
        self._writer.start(max(timeout, SQLITE_TIMEOUT) if is_local else timeout)

    @property
    def run_id(self) -> str:
        """The server's id of the run, or the journal's until the server has been reached."""
        return self._writer.run_id

    @property
    def experiment_id(self) -> str | None:
        """The server's id of the experiment; None until the server has been reached."""
        return self._writer.sender.experiment_id

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self._writer.journal.path

    def record_context(self) -> dict[str, str]:
        """Log where the run comes from, and return the environment; empty if it could not be found out."""
        found: dict[str, str] = {}
        try:
            found = record_environment(self.client, self.run_id)
            if (config := hydra_config()) is not None:
                record_config(self.client, self.run_id, config)
        except Exception as error:  # of git, a device or a config
            log.warning("the environment could not be logged: %s", mask(str(error)))
        return found

    def finish(self, ending: Ending) -> bool:
        """Log how the run ended, and wait for the server; True if it has everything."""
        self._end(ending)
        return self.flush(self._settings.finalize_timeout)

    def finish_at_exit(self) -> None:
        """Log how the process ended, unless the run has ended before."""
        if self._writer.status in ENDED:
            return
        error = _last_uncaught_error()
        self._end(ending_of(None if error is self._error_before else error))

    def _end(self, ending: Ending) -> None:
        self._writer.record(tags_entry({ENDED_TAG: ending.word}))
        self._writer.record(status_entry(ending.status))

    def flush(self, timeout: float) -> bool:
        """Wait ``timeout`` seconds at most until the server has everything; True if it has."""
        return self._writer.flush(timeout)

    def close(self) -> None:
        """Send what can be sent, end the thread, and remove the journal if the server has all of it."""
        settings, journal = self._settings, self._writer.journal
        done = self._writer.close(settings.finalize_timeout)
        server, sender = mask_address(settings.tracking_uri), self._writer.sender
        if lost := journal.dropped + len(journal.unwritten):
            log.warning(
                "%d entries of run %s are lost: the journal %s could not be written (%s), and the MLflow server %s "
                "has not taken them",
                lost,
                self.run_id,
                journal.path,
                journal.write_error,
                server,
            )
        if sender.rejected:
            log.warning("%d values of run %s are left out: MLflow cannot store them", sender.rejected, self.run_id)
        if done and not settings.keep_journal and self._writer.is_wholly_sent():
            journal.remove()
        elif journal.path.exists() and not sender.is_done_with_file():
            log.warning(
                "run %s is not complete on the MLflow server %s. Send the rest with: grad-callbacks sync %s",
                self.run_id,
                server,
                shlex.quote(str(settings.journal_dir)),
            )


def write_child_journal(settings: RunSettings, name: str, tags: Mapping[str, str], entries: Sequence[Entry]) -> Path:
    """Write the journal of a run that is already over, and return its file."""
    header = _new_header(settings, None) | {"name": name, "tags": _all_tags(tags)}
    child = Journal(settings.journal_dir / f"{header['id']}{SUFFIX}", header, settings.disk_limit)
    child.take()
    child.open_for_writing()
    for entry in entries:
        child.append(entry)
    child.close()
    if child.unwritten or child.dropped:
        log.warning(
            "%d entries of the run %s are lost: its journal cannot be written (%s)",
            len(child.unwritten) + child.dropped,
            name,
            child.write_error,
        )
    return child.path


def _open_journal(settings: RunSettings, run_id: str | None) -> Journal:
    """The journal of the run that is continued, if it is here and free; or else a new one."""
    if run_id is not None:
        for journal in journals(settings.journal_dir):
            names = {journal.id, journal.header.get("run_id"), *journal.positions.run_ids()}
            if run_id in names and journal.take_existing():
                journal.disk_limit = settings.disk_limit
                journal.named_runs = {run_id}
                for note in journal.notes:
                    log.warning("%s: %s", journal.path.name, note)
                return journal
    header = _new_header(settings, run_id)
    path = settings.journal_dir / f"{header['id']}{SUFFIX}"
    if path.exists():  # another process writes to the same run
        path = path.with_stem(f"{path.stem}-{uuid.uuid4().hex[:8]}")
    journal = Journal(path, header, settings.disk_limit)
    journal.take()
    return journal


def _new_header(settings: RunSettings, run_id: str | None) -> dict[str, Any]:
    header = {
        "id": run_id if run_id and is_id(run_id) else uuid.uuid4().hex,
        "uri": mask_address(settings.tracking_uri),
        "experiment": storable(settings.experiment),
        "artifact_location": settings.artifact_location,
        "name": None if settings.name is None else text_of(settings.name),
        "tags": _all_tags(settings.tags),
        "start": now(),
        "keep": settings.keep_journal,
    }
    return signed(header | ({"run_id": run_id} if run_id else {}))


def _clean_up(folder: Path, journal: Journal, sender: Sender) -> None:
    try:
        clean_up(folder, journal, sender)
    except Exception as error:
        log.warning("the journals in %s could not be cleaned up: %s", folder, mask(str(error)))


def _last_uncaught_error() -> object:
    return getattr(sys, "last_value", None)


def _all_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """The user's tags and those that MLflow finds out: the script, the commit, the user."""
    try:
        from mlflow.tracking.context.registry import resolve_tags

        tags = resolve_tags(tags)
    except Exception as error:
        log.warning("MLflow cannot find out where the run comes from: %s", mask(str(error)))
    named: dict[str, str] = tags_entry(tags)["g"]
    return named
