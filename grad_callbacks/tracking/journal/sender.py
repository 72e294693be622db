"""Sends a journal to a server, each entry exactly once whatever fails in between."""

from __future__ import annotations

import logging
from typing import Any

from mlflow import MlflowClient

from grad_callbacks.tracking.journal.batches import next_batch
from grad_callbacks.tracking.journal.damage import LONGEST_LIST, Damage
from grad_callbacks.tracking.journal.errors import Verdict, judge
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.requests import Requests
from grad_callbacks.tracking.journal.run_lookup import RunLookup
from grad_callbacks.tracking.journal.tags import JOURNAL_TAG
from grad_callbacks.tracking.secrets.masking import mask_address

log = logging.getLogger("grad_callbacks")


class Sender:
    """Sends what a server does not have yet of a journal, batch by batch, and notes what it has.

    Args:
        journal: What to send; nothing else sends it to this server at the same time.
        uri: The tracking address.

    Attributes:
        run_id: The server's id of the run; None until :meth:`connect` has succeeded.
        experiment_id: The server's id of the run's experiment; None until then.
        lost: How many entries were damaged in the journal, and so are missing on the server.
        lost_at: Which; the first 20 places.
        harmless: How many damaged lines held no entry, as a header does, of which there is a copy.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self.journal = journal
        self.uri = uri
        self.experiment_id: str | None = None
        self._server = mask_address(uri)
        state = self._state()
        self._known_id: str | None = state.get("run_id")
        self._offset = int(state.get("offset", 0))
        self._next: int | None = state.get("next") if self._offset else journal.first_number
        self.lost = int(state.get("lost", 0))
        self.lost_at = [str(place) for place in state.get("lost_at", [])]
        self.harmless = 0
        self._lookup = RunLookup(journal, uri)
        self._requests = Requests(uri, journal, state.get("deferred", []), int(state.get("rejected", 0)))

    def _state(self) -> dict[str, Any]:
        """What the server has, as far as that can be true."""
        state = self.journal.positions.of(self._server)
        sent = self.journal.header.get("sent", {})
        removed = self.journal.base + self.journal.header_size()
        if self._server in sent and state.get("offset", 0) < removed:  # the last note about it is gone
            known = {"run_id": str(sent[self._server])}
            state = known | state | {"offset": removed, "next": self.journal.first_number}
        offset = state.get("offset", 0)
        return state if self.journal.is_line_end(offset) else state | {"offset": 0, "next": None}

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client to the server."""
        return self._requests.client

    @property
    def run_id(self) -> str | None:
        """The server's id of the run; None until :meth:`connect` has succeeded."""
        return self._requests.run_id

    @property
    def rejected(self) -> int:
        """How many values the server refused for good."""
        return self._requests.rejected

    @property
    def deferred(self) -> int:
        """How many entries could not be stored, and are to be tried again."""
        return len(self._requests.deferred)

    def answers(self, error: Exception) -> bool:
        """True if the server answers to something else, so that an error is one of this journal alone."""
        if judge(error) is not Verdict.UNCLEAR:
            return False
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def is_done(self) -> bool:
        """True if the server has everything except what it refused."""
        return self.is_drained() and not self._requests.deferred

    def is_drained(self) -> bool:
        """True if there is nothing to send except artifacts that could not be stored the last time."""
        return self.has_reached(self.journal.end())

    def is_done_with_file(self) -> bool:
        """True if the server has all of the journal's file: a later sync would find nothing to send."""
        return self._offset >= self.journal.end() and not self._requests.deferred

    def has_reached(self, end: int) -> bool:
        """True if the server has the journal up to this offset, and no entry is left in memory."""
        return self._offset >= end and not self.journal.unwritten

    def connect(self) -> None:
        """Find the journal's run on the server, or create it.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        run = self._lookup.known(self.client, self._known_id)
        if run is None:
            if self._known_id:  # another store at the same address, or one that was emptied: send everything again
                self._offset, self._next = 0, self.journal.first_number
                self._requests.deferred, self._requests.rejected = [], 0
                self.lost, self.lost_at = 0, []
            run = self._lookup.find_or_create(self.client)
        self._requests.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        self._count_removed()
        self._save_position()

    def step(self) -> int:
        """Send one batch, and return how many entries it held; 0 if there are none.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer. The batch is then sent again by the next
                call.
        """
        batch = next_batch(self.journal, self._offset, self._next)
        if not batch.count:
            return 0
        self._requests.send(batch)
        if batch.offset is None:
            self.journal.forget_in_memory(batch.memory)
        else:
            self._offset, self._next = batch.offset, batch.damage.expected
            self._count(batch.damage)
        self._save_position()
        return batch.count

    def send_deferred(self) -> None:
        """Try again to store what could not be stored although the server answered."""
        if not self._requests.deferred:
            return
        try:
            self._requests.retry_deferred()
        finally:
            self._save_position()

    def send_status(self, journal: Journal) -> None:
        """Send the last status of another journal's run, if the server has that run and takes it for running."""
        run_id = journal.positions.of(self._server).get("run_id") or journal.header.get("run_id")
        if not run_id:
            return
        run = self.client.get_run(run_id)
        may_write = journal.is_trusted or run.data.tags.get(JOURNAL_TAG) == journal.id
        if may_write and run.info.status == "RUNNING":
            self.client.set_terminated(run_id, journal.last_status(), int(journal.lock.last_seen * 1000))

    def _count(self, damage: Damage) -> None:
        self.lost += damage.lost
        self.lost_at = (self.lost_at + damage.lost_at)[:LONGEST_LIST]
        self.harmless += damage.harmless
        if damage.lost:
            log.warning(
                "%d entries of the journal %s are damaged and are lost (%s); the rest is sent",
                damage.lost,
                self.journal.path.name,
                ", ".join(damage.lost_at),
            )

    def _count_removed(self) -> None:
        """Count entries that were removed from the journal after another server, or an emptied store, had them."""
        first = self.journal.first_number or 1
        if self._offset < self.journal.base and first > 1:
            self.lost += first - 1
            self.lost_at = [f"entries 1-{first - 1}, which were sent elsewhere and removed here", *self.lost_at]
            log.warning(
                "%d entries of the journal %s were sent elsewhere and removed", first - 1, self.journal.path.name
            )
            self._offset = self.journal.base

    def _save_position(self) -> None:
        self._known_id = self.run_id
        state = {
            "run_id": self.run_id,
            "offset": self._offset,
            "next": self._next,
            "lost": self.lost,
            "lost_at": self.lost_at,
            "rejected": self._requests.rejected,
            "deferred": self._requests.deferred,
        }
        self.journal.positions.save(self._server, state)
