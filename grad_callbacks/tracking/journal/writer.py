"""The thread that sends a journal to the server during training."""

from __future__ import annotations

import logging
import random
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from grad_callbacks.tracking.journal.copies import UnsafePath, artifact_path
from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.format import ENDED, STATUSES, Entry
from grad_callbacks.tracking.journal.journal import MEMORY_LIMIT, Journal
from grad_callbacks.tracking.journal.sender import Sender
from grad_callbacks.tracking.secrets.masking import mask, mask_address

log = logging.getLogger("grad_callbacks")

INTERVAL = 1.0  # seconds between requests, so that metrics go in batches
FIRST_PAUSE = 1.0  # seconds after a failure; doubled by each further one
LONGEST_PAUSE = 30.0  # seconds
HEARTBEAT = 15.0  # seconds between two touches of the lock file
RETRY_TIMEOUT = 2.0  # seconds to wait for a server that did not answer the last time


class Writer:
    """Writes entries into a journal and sends them from a thread of its own.

    After a failed request it waits 1 second, then 2, 4 and so on, up to 30. Memory holds one batch of the journal, at
    most 0.4 MB, and what the disk did not take. What the server has is removed from the journal's file from time to
    time, unless the journal is to be kept. No method raises because of the server or the disk.

    Args:
        journal: Opened for writing.
        uri: The tracking address.
        is_fresh: The run begins with this process.
        on_connected: Called in the thread when the run has been found or created.
    """

    def __init__(
        self, journal: Journal, uri: str, is_fresh: bool, on_connected: Callable[[Sender], object] = lambda _: None
    ) -> None:
        self.journal = journal
        self.sender = Sender(journal, uri)
        self.copies: dict[str, Path] = {} if is_fresh else _copies(journal)
        self.tables: set[str] = set(journal.header.get("copies", {}))
        self.status = "RUNNING"
        self._is_fresh = is_fresh
        self._on_connected = on_connected
        self._condition = threading.Condition()
        self._attempts = 0  # to send what there is
        self._failures = 0  # in a row
        self._is_closing = False
        self._is_urgent = False
        self._since_status = False
        self._has_warned_of_disk = self._has_warned_of_memory = False
        self._thread = threading.Thread(target=self._run, name="grad-callbacks-writer", daemon=True)

    # Called by the training

    def start(self, timeout: float) -> None:
        """Start the thread and wait until it has found or created the run, or has failed to.

        Args:
            timeout: Seconds to wait at most.
        """
        self._warn_of_disk()
        self._thread.start()
        with self._condition:
            self._condition.wait_for(lambda: self.sender.run_id is not None or self._failures, timeout)
        if self.sender.run_id is None and not self._failures:
            log.warning(self._problem("does not answer"))

    @property
    def run_id(self) -> str:
        """The server's id of the run, or the journal's until the server has been reached."""
        return self.sender.run_id or self.journal.id

    def record(self, entry: Entry, run_id: str | None = None) -> None:
        """Write an entry into the journal: of its own run, or of another one that the server has."""
        if entry.get("status", "RUNNING") not in STATUSES:
            log.warning("MLflow knows no status %r: the run is marked FAILED", entry["status"])
            entry = entry | {"status": "FAILED"}
        if run_id is not None and not self._is_own(run_id):
            entry = entry | {"run": run_id}
        elif "status" in entry:
            self.status, self._since_status = entry["status"], False
        else:
            self._since_status = True
            if "file" in entry:
                self.copies[artifact_path(entry)] = self.journal.copies.path_of(entry)
        self.journal.append(entry)
        self._warn_of_disk()

    def copy_artifact(self, local: Path) -> Entry:
        """Copy a file (see :meth:`Journal.copy_artifact`)."""
        return self.journal.copy_artifact(local)

    def server_id(self, run_id: str) -> str:
        """The server's id of a run that may be given by its journal's."""
        return self.run_id if self._is_own(run_id) else run_id

    def is_fresh(self, run_id: str) -> bool:
        """True if everything in the run was logged by this process."""
        return self._is_fresh and self._is_own(run_id)

    def is_table(self, path: str) -> None:
        """Keep the last copy of this artifact, a table, to which rows may be added."""
        self.tables.add(path)

    def flush(self, timeout: float) -> bool:
        """Wait until the server has everything; True if it has.

        If the last request failed, one more is awaited, for two seconds at most.

        Args:
            timeout: Seconds to wait at most.
        """
        deadline = time.monotonic() + min(timeout, RETRY_TIMEOUT if self._failures else timeout)
        with self._condition:
            before = self._attempts
            while self._thread.is_alive() and time.monotonic() < deadline:
                self._is_urgent = True
                self._condition.notify_all()
                self._condition.wait(deadline - time.monotonic())
                if self._attempts > before and (self._failures or self.sender.is_drained()):
                    break
        return self.sender.is_drained()

    def close(self, timeout: float) -> bool:
        """Send what can be sent in ``timeout`` seconds, and end the thread, which closes the journal."""
        if self._since_status and self.status != "RUNNING":
            self.journal.append(status_entry(self.status))  # the last line holds the status
        done = self.flush(timeout)
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
        self.journal.retry_unwritten()
        self.journal.flush_to_disk()
        self._thread.join(RETRY_TIMEOUT if done else 0.1)
        return done

    def is_wholly_sent(self) -> bool:
        """True if the run has ended and the server has every entry, those in memory included."""
        journal = self.journal
        has_ended = self.status in ENDED or journal.last_status() in ENDED
        return has_ended and journal.positions.is_complete(journal.end()) and not journal.unwritten

    def _warn_of_disk(self) -> None:
        """Say once that the disk refuses, once that memory is full, and once that the disk takes entries again."""
        journal = self.journal
        if not journal.is_written and not self._has_warned_of_disk:
            log.warning(
                "the journal %s cannot be written (%s). What is logged is in memory only, up to %d MB: it goes to the "
                "server from there, and is lost if this process ends before the server has taken it. "
                "Make room, or set GRAD_CALLBACKS_JOURNAL to a folder on another disk",
                journal.path,
                journal.write_error,
                MEMORY_LIMIT // 2**20,
            )
        elif self._has_warned_of_disk and journal.is_written:
            log.warning("the journal %s is written again", journal.path)
        self._has_warned_of_disk = not journal.is_written
        if journal.dropped and not self._has_warned_of_memory:
            self._has_warned_of_memory = True
            log.warning("memory is full too: from now on new entries are lost until the server or the disk takes some")

    def _is_own(self, run_id: str) -> bool:
        return run_id in (self.sender.run_id, self.journal.id, self.journal.header.get("run_id"))

    # The thread

    def _run(self) -> None:
        last_heartbeat = -HEARTBEAT
        while not self._is_closing:
            if time.monotonic() - last_heartbeat > HEARTBEAT:
                self.journal.lock.touch()
                last_heartbeat = time.monotonic()
            self._attempt()
            with self._condition:
                self._attempts += 1
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._is_closing or self._is_urgent, self._pause())
                self._is_urgent = False
        self.journal.close()

    def _attempt(self) -> None:
        try:
            self._send()
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                log.warning(self._problem(f"did not accept logged data ({_first_line(error)})"))
            return
        if self._failures:
            log.warning("the MLflow server %s answers again", mask_address(self.sender.uri))
        self._failures = 0

    def _send(self) -> None:
        self.journal.retry_unwritten()  # in this thread, so that none is sent from memory meanwhile
        if self.sender.run_id is None:
            self.sender.connect()
            with self._condition:
                self._condition.notify_all()
            self._on_connected(self.sender)
        # What is logged meanwhile waits for the next interval: many small requests would slow the training down.
        end = self.journal.end()
        while not self._is_closing and self.sender.step() and not self.sender.has_reached(end):
            pass
        if self._is_urgent and self.sender.is_drained():
            self.sender.send_deferred()
        self.journal.remove_sent(self._table_copies())

    def _table_copies(self) -> dict[str, str]:
        """The last copies of tables, as the journal's entries name them."""
        copies = {path: self.copies[path] for path in sorted(self.tables) if path in self.copies}
        folder = self.journal.copies.folder
        return {
            path: copy.relative_to(folder).as_posix() if copy.is_relative_to(folder) else str(copy)
            for path, copy in copies.items()
        }

    def _pause(self) -> float:
        if not self._failures:
            return INTERVAL
        longest: float = min(FIRST_PAUSE * 2.0 ** (self._failures - 1), LONGEST_PAUSE)
        return longest * random.uniform(0.75, 1.0)  # so that many trainings do not come back at the same moment

    def _problem(self, what: str) -> str:
        server, journal = mask_address(self.sender.uri), self.journal
        if not journal.is_written:
            return (
                f"the MLflow server {server} {what}, and the journal {journal.path} cannot be written. Training "
                f"continues; {len(journal.unwritten)} entries so far are in memory only, and they and what follows are "
                "lost if this process ends before the server answers or the disk has room"
            )
        return (
            f"the MLflow server {server} {what}. Training continues; logged data are kept in "
            f"{journal.path.parent} and sent when the server answers again, or later with: "
            f"grad-callbacks sync {shlex.quote(str(journal.path.parent))}"
        )


def _copies(journal: Journal) -> dict[str, Path]:
    """The last copy of each artifact that is in the journal."""
    copies: dict[str, Path] = {}
    kept = [{"file": file, "to": place.rpartition("/")[0]} for place, file in journal.header.get("copies", {}).items()]
    written = (line.entry for line in journal.lines_with(b'"file"', journal.end()) if line.entry is not None)
    for entry in [*kept, *written]:
        if "file" in entry and "to" in entry and "run" not in entry:
            with suppress(UnsafePath):
                copies[artifact_path(entry)] = journal.copies.path_of(entry)
    return copies


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return str(mask(lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"))
