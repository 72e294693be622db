"""The requests that bring a journal's entries into a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking.journal.batches import MAX_METRICS, MAX_PARAMS, MAX_TAGS, Batch, metrics_of
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.run_lookup import status_code
from grad_callbacks.tracking.secrets.masking import mask
from grad_callbacks.tracking.store import open_store

log = logging.getLogger("grad_callbacks")

_TEMPORARY = (401, 403, 404, 408, 429)  # HTTP status codes of client errors that may pass by themselves


class Requests:
    """Sends entries to one run; data that the server refuses are counted and skipped.

    Sending an entry twice changes nothing: MLflow's databases keep one of several metrics that agree in name, value,
    time and step, and artifacts are overwritten; a parameter that has another value already gets a name of its own.

    Args:
        uri: The tracking address.
        journal: The run's journal, which holds copies of artifacts.
        deferred: Entries of artifacts that could not be stored although the server answered.
        rejected: How many entries were refused so far.

    Attributes:
        run_id: The server's id of the run; set before anything is sent.
        deferred: As the argument, up to now.
        rejected: As the argument, up to now.
    """

    def __init__(self, uri: str, journal: Journal, deferred: Sequence[Entry] = (), rejected: int = 0) -> None:
        self.uri = uri
        self.run_id: str | None = None
        self.deferred: list[Entry] = list(deferred)
        self.rejected = rejected
        self._journal = journal
        self._client: MlflowClient | None = None
        self._params: dict[str, str] | None = None  # those of the run on the server, once they were read

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client to the server."""
        if self._client is None:
            open_store(self.uri)
            self._client = MlflowClient(self.uri)
        return self._client

    def send(self, batch: Batch) -> None:
        """Send a batch.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        if batch.single is not None:
            self._send_single(batch.single)
            return
        metrics, params = batch.metrics, self._new_params(batch.params)
        tags = [RunTag(name, value) for name, value in batch.tags.items()]
        while metrics or params or tags:  # one entry may hold more than a request takes
            self._log(metrics[:MAX_METRICS], params[:MAX_PARAMS], tags[:MAX_TAGS])
            metrics, params, tags = metrics[MAX_METRICS:], params[MAX_PARAMS:], tags[MAX_TAGS:]

    def retry_deferred(self) -> None:
        """Try again to store the artifacts that could not be stored before.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        waiting, self.deferred = self.deferred, []
        try:
            while waiting:
                self._send_single(waiting[0])
                waiting.pop(0)
        finally:
            self.deferred += waiting

    def _log(self, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        if not metrics and not params and not tags:
            return
        try:
            self.client.log_batch(str(self.run_id), metrics, params, tags)
        except MlflowException as error:
            self._raise_outage(error)
            parts: list[tuple[list[Metric], list[Param], list[RunTag]]]
            parts = [([m], [], []) for m in metrics] + [([], [p], []) for p in params] + [([], [], [t]) for t in tags]
            if len(parts) == 1:
                self._reject([*metrics, *params, *tags][0], error)
                return
            for part in parts:  # MLflow refuses a whole batch for one value
                self._log(*part)
        if self._params is not None:
            self._params |= {param.key: param.value for param in params}

    def _new_params(self, params: dict[str, str]) -> list[Param]:
        """MLflow cannot change a parameter: another value, as of a resumed run, is kept as ``<name>.changed``."""
        if not params:
            return []
        if self._params is None:
            self._params = dict(self.client.get_run(str(self.run_id)).data.params)
        new = []
        for name, value in params.items():
            free, count = name, 1
            while self._params.get(free, value) != value:
                count += 1
                free = f"{name}.changed{'' if count == 2 else f'.{count - 1}'}"
            if free not in self._params:
                new.append(Param(free, value))
        return new

    def _send_single(self, entry: Entry) -> None:
        run_id = str(entry.get("run", self.run_id))
        try:
            self._send_kind(entry, run_id)
        except MlflowException as error:
            self._raise_outage(error, is_own_run="run" not in entry)
            self._reject(entry, error)

    def _send_kind(self, entry: Entry, run_id: str) -> None:
        if "file" in entry:
            self._send_file(entry, run_id)
        elif "untag" in entry:
            if "run" in entry or entry["untag"] in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, entry["untag"])
        elif "status" in entry:
            if entry["status"] == "RUNNING":
                self.client.update_run(run_id, "RUNNING")
            else:
                self.client.set_terminated(run_id, entry["status"], entry["t"])
        elif "name" in entry:
            self.client.update_run(run_id, name=entry["name"])
        elif "datasets" in entry:
            self.client.log_inputs(run_id, [_dataset(value) for value in entry["datasets"]])
        else:
            self.client.log_batch(
                run_id,
                metrics_of(entry),
                [Param(name, value) for name, value in entry.get("p", {}).items()],
                [RunTag(name, value) for name, value in entry.get("g", {}).items()],
            )

    def _send_file(self, entry: Entry, run_id: str) -> None:
        copy = self._journal.copies.path_of(entry)
        if not copy.exists():
            self._reject(entry, "its copy is missing")
            return
        try:
            self.client.log_artifact(run_id, str(copy), entry["to"] or None)
        except Exception as error:
            self.client.get_run(run_id)  # raises if it is the server that does not answer
            log.warning("artifact %s cannot be stored now: %s", copy.name, mask(str(error)))
            self.deferred.append(entry)
            return
        self._journal.release_copy(entry)

    def _raise_outage(self, error: MlflowException, is_own_run: bool = True) -> None:
        """Raise the error again unless the data are to blame."""
        code = status_code(error)
        if not 400 <= code < 500 or (code in _TEMPORARY and is_own_run):
            raise error
        if is_own_run and self.client.get_run(str(self.run_id)).info.lifecycle_stage != "active":
            raise MlflowException(f"run {self.run_id} was deleted on the server") from error

    def _reject(self, what: Any, why: object) -> None:
        self.rejected += 1
        log.warning("MLflow refuses %s: %s", mask(str(what)), mask(str(why)))


def _dataset(value: dict[str, Any]) -> DatasetInput:
    tags = value.get("tags", {})
    pairs = tags.items() if isinstance(tags, dict) else ((tag["key"], tag["value"]) for tag in tags)
    return DatasetInput(Dataset(**value["dataset"]), [InputTag(key, text) for key, text in pairs])
