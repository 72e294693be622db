"""The thread that sends a journal to the server during training."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grad_callbacks.tracking.journal.entries import status_entry
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import Journal
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
    most 0.4 MB, and what the disk did not take. No method raises because of the server or the disk.

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
        self.status = "RUNNING"
        self._is_fresh = is_fresh
        self._on_connected = on_connected
        self._condition = threading.Condition()
        self._attempts = 0  # to send what there is
        self._failures = 0  # in a row
        self._is_closing = False
        self._is_urgent = False
        self._since_status = False
        self._thread = threading.Thread(target=self._run, name="grad-callbacks-writer", daemon=True)

    # Called by the training

    def start(self, timeout: float) -> None:
        """Start the thread and wait until it has found or created the run, or has failed to.

        Args:
            timeout: Seconds to wait at most.
        """
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
        if run_id is not None and not self._is_own(run_id):
            entry = entry | {"run": run_id}
        elif "status" in entry:
            self.status, self._since_status = entry["status"], False
        else:
            self._since_status = True
            if "file" in entry:
                self.copies[_artifact_path(entry)] = self.journal.copies.path_of(entry)
        could_write = self.journal.write_error is None
        self.journal.append(entry)
        if self.journal.write_error is not None and could_write:
            log.warning(
                "the journal %s cannot be written (%s): logged data go to the server from memory",
                self.journal.path.name,
                self.journal.write_error,
            )

    def copy_artifact(self, local: Path) -> Entry:
        """Copy a file (see :meth:`Journal.copy_artifact`)."""
        return self.journal.copy_artifact(local)

    def server_id(self, run_id: str) -> str:
        """The server's id of a run that may be given by its journal's."""
        return self.run_id if self._is_own(run_id) else run_id

    def is_fresh(self, run_id: str) -> bool:
        """True if everything in the run was logged by this process."""
        return self._is_fresh and self._is_own(run_id)

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
        if self.sender.run_id is None:
            self.sender.connect()
            with self._condition:
                self._condition.notify_all()
            self._on_connected(self.sender)
        # What is logged meanwhile waits for the next interval: many small requests would slow the training down.
        end = self.journal.end()
        while not self._is_closing and self.sender.step() and not self.sender.has_reached(end):
            pass

    def _pause(self) -> float:
        if not self._failures:
            return INTERVAL
        longest: float = min(FIRST_PAUSE * 2.0 ** (self._failures - 1), LONGEST_PAUSE)
        return longest * random.uniform(0.75, 1.0)  # so that many trainings do not come back at the same moment

    def _problem(self, what: str) -> str:
        return (
            f"the MLflow server {mask_address(self.sender.uri)} {what}. Training continues; logged data are kept in "
            f"{self.journal.path.parent} and sent when the server answers again, or later with: "
            f"grad-callbacks sync {self.journal.path.parent}"
        )


def _copies(journal: Journal) -> dict[str, Path]:
    return {
        _artifact_path(entry): journal.copies.path_of(entry)
        for entry, _ in journal.entries()
        if "file" in entry and "run" not in entry
    }


def _artifact_path(entry: Entry) -> str:
    return "/".join(filter(None, (entry["to"], Path(entry["file"]).name)))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return str(mask(lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}…"))
