"""Sends a journal to a server, each entry exactly once whatever fails in between."""

from __future__ import annotations

from mlflow import MlflowClient

from grad_callbacks.tracking.journal.batches import next_batch
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.requests import Requests
from grad_callbacks.tracking.journal.run_lookup import RunLookup
from grad_callbacks.tracking.secrets.masking import mask_address


class Sender:
    """Sends what a server does not have yet of a journal, batch by batch, and notes what it has.

    Args:
        journal: What to send; nothing else sends it to this server at the same time.
        uri: The tracking address.

    Attributes:
        run_id: The server's id of the run; None until :meth:`connect` has succeeded.
        experiment_id: The server's id of the run's experiment; None until then.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self.journal = journal
        self.uri = uri
        self.experiment_id: str | None = None
        self._server = mask_address(uri)
        state = journal.positions.of(self._server)
        self._known_id: str | None = state.get("run_id")
        self._offset = int(state.get("offset", 0))
        self._lookup = RunLookup(journal)
        self._requests = Requests(uri, journal, state.get("deferred", []), int(state.get("rejected", 0)))

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
        """How many entries the server refused for good."""
        return self._requests.rejected

    def is_done(self) -> bool:
        """True if the server has everything except what it refused."""
        return self.is_drained() and not self._requests.deferred

    def is_drained(self) -> bool:
        """True if there is nothing to send except artifacts that could not be stored the last time."""
        return self.has_reached(self.journal.end())

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
                self._offset, self._requests.deferred, self._requests.rejected = 0, [], 0
            run = self._lookup.find_or_create(self.client)
        self._requests.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        self._save_position()

    def step(self) -> int:
        """Send one batch, and return how many entries it held; 0 if there are none.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer. The batch is then sent again by the next
                call.
        """
        batch = next_batch(self.journal, self._offset)
        if not batch.count:
            return 0
        self._requests.send(batch)
        if batch.offset is None:
            self.journal.forget_in_memory(batch.count)
        else:
            self._offset = batch.offset
        self._save_position()
        return batch.count

    def send_deferred(self) -> None:
        """Try again to store the artifacts that could not be stored although the server answered."""
        try:
            self._requests.retry_deferred()
        finally:
            self._save_position()

    def send_status(self, journal: Journal) -> None:
        """Send the last status of another journal's run, if the server has that run and takes it for running."""
        run_id = journal.positions.of(self._server).get("run_id") or journal.header.get("run_id")
        if run_id and self.client.get_run(run_id).info.status == "RUNNING":
            self.client.set_terminated(run_id, journal.last_status(), int(journal.lock.last_seen * 1000))

    def _save_position(self) -> None:
        self._known_id = self.run_id
        state = {
            "run_id": self.run_id,
            "offset": self._offset,
            "rejected": self._requests.rejected,
            "deferred": self._requests.deferred,
        }
        self.journal.positions.save(self._server, state)
