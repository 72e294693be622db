"""A journal's way to a server: exactly once, whatever happens between."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking.journal.journal import Entry, Journal
from grad_callbacks.tracking.secrets.masking import mask, mask_address
from grad_callbacks.tracking.store import open_store

log = logging.getLogger("grad_callbacks")

JOURNAL_TAG = "grad.journal"  # by which a run is found again that was made from a journal
PARENT_TAG = "mlflow.parentRunId"
METRICS, OTHERS, SIZE = 1000, 100, 400_000  # what MLflow takes in one request; bytes
_OUTAGES = (401, 403, 404, 408, 429)  # of the codes that blame the request: these may pass


@dataclass
class _Batch:
    """Consecutive entries that one request can carry.

    Attributes:
        count: How many of them, those without anything to send included.
        offset: Where in the journal they end; None for entries in memory.
        alone: An entry that needs a request of its own.
    """

    count: int = 0
    offset: int | None = None
    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    alone: Entry | None = None


class Sender:
    """Sends what a server does not have yet of a journal, batch by batch, and notes what it has.

    Sending again changes nothing: a run carries its journal's id as a tag; MLflow's databases keep one of several
    metrics that agree in name, value, time and step; artifacts are overwritten; a parameter that is there with another
    value gets a name of its own.

    Args:
        journal: What to send; nobody else sends it meanwhile.
        uri: The tracking address.

    Attributes:
        run_id: The server's name of the run; None until :meth:`connect` has succeeded.
        experiment_id: Of the run.
        rejected: Entries that the server will never take.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self.journal = journal
        self.uri = uri
        self._server = mask_address(uri)
        state = journal.sent.get(self._server, {})
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self._offset = int(state.get("offset", 0))
        self._deferred: list[Entry] = list(state.get("deferred", []))
        self.rejected = int(state.get("rejected", 0))
        self._known_id: str | None = state.get("run_id")
        self._client: MlflowClient | None = None
        self._has_tried = False
        self._params: dict[str, str] | None = None  # those of the run on the server

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client to the server."""
        if self._client is None:
            open_store(self.uri)
            self._client = MlflowClient(self.uri)
        return self._client

    def is_done(self) -> bool:
        """True if the server has all there is, but for what it refused."""
        return self.is_drained() and not self._deferred

    def is_drained(self) -> bool:
        """True if there is nothing to send, but for artifacts that could not be stored the last time."""
        return self.has_reached(self.journal.end())

    def has_reached(self, end: int) -> bool:
        """True if the server has the journal up to this offset, and nothing waits in memory."""
        return self._offset >= end and not self.journal.waiting

    def connect(self) -> None:
        """Find the journal's run on the server, or make it.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        run = self._known_run() or self._found_run()
        if run is None:
            run = self._new_run()
        self.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        self._has_tried = False
        self._acknowledge()

    def step(self) -> int:
        """Send one batch, and return how many entries it held; 0 if there are none.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer. Nothing is lost: the batch comes again.
        """
        batch = self._next_batch()
        if not batch.count:
            return 0
        if batch.alone is not None:
            self._send_alone(batch.alone)
        else:
            self._send_batch(batch)
        if batch.offset is None:
            self.journal.done_waiting(batch.count)
        else:
            self._offset = batch.offset
        self._acknowledge()
        return batch.count

    def send_deferred(self) -> None:
        """Try the artifacts again that could not be stored though the server answered."""
        waiting, self._deferred = self._deferred, []
        try:
            while waiting:
                self._send_alone(waiting[0])
                waiting.pop(0)
        finally:
            self._deferred += waiting
            self._acknowledge()

    def tell_end(self, journal: Journal) -> None:
        """Tell the server the status of another journal's run, if it has that run."""
        state = journal.sent.get(self._server, {})
        run_id = state.get("run_id") or journal.header.get("run_id")
        if run_id and self.client.get_run(run_id).info.status == "RUNNING":
            self.client.set_terminated(run_id, journal.last_status(), int(journal.last_sign * 1000))

    # The run

    def _known_run(self) -> Run | None:
        for run_id in (self._known_id, self.journal.header.get("run_id")):
            if run_id:
                try:
                    return self.client.get_run(run_id)
                except MlflowException as error:
                    if _code(error) != 404:
                        raise
                    log.warning("run %s is not on the MLflow server: its journal makes it anew", run_id)
        if self._known_id:  # another store behind the same address, or an emptied one: all anew
            self._offset, self._deferred, self.rejected = 0, [], 0
        return None

    def _found_run(self) -> Run | None:
        experiment = self.client.get_experiment_by_name(self.journal.header["experiment"])
        if experiment is None:
            return None
        runs = self._tagged([experiment.experiment_id], self.journal.id)
        for twin in runs[1:]:  # a request that was given up had been served all the same
            self.client.delete_run(twin.info.run_id)
        return runs[0] if runs else None

    def _tagged(self, experiments: list[str], journal_id: str) -> list[Run]:
        query = f"tags.`{JOURNAL_TAG}` = '{journal_id}'"
        return sorted(self.client.search_runs(experiments, query), key=lambda run: str(run.info.run_id))

    def _new_run(self) -> Run:
        header = self.journal.header
        had_tried, self._has_tried = self._has_tried, True
        tags = header.get("tags", {}) | {JOURNAL_TAG: self.journal.id}
        if PARENT_TAG in tags:
            tags[PARENT_TAG] = self._parent(tags[PARENT_TAG])
        run = self.client.create_run(
            self._experiment(), start_time=header.get("start"), tags=tags, run_name=header.get("name")
        )
        return (self._found_run() if had_tried else None) or run

    def _experiment(self) -> str:
        name = self.journal.header["experiment"]
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        try:
            return str(self.client.create_experiment(name, self.journal.header.get("artifact_location")))
        except MlflowException as error:
            experiment = self.client.get_experiment_by_name(name)  # made by another process meanwhile
            if experiment is None:
                raise error
            return str(experiment.experiment_id)

    def _parent(self, run_id: str) -> str:
        """A parent that was made offline has another id on the server."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        found = self._tagged(experiments, run_id)
        return str(found[0].info.run_id) if found else run_id

    # What is next

    def _next_batch(self) -> _Batch:
        batch, size = _Batch(offset=self._offset), 0
        for entry, offset in self.journal.entries(self._offset):
            size += offset - (batch.offset or 0)
            if not self._take(batch, entry, size):
                return batch
            batch.count, batch.offset = batch.count + 1, offset
            if batch.alone is not None:
                return batch
        if batch.count:
            return batch
        batch.offset = None
        for entry, length in self.journal.in_memory():
            size += length
            if not self._take(batch, entry, size):
                return batch
            batch.count += 1
            if batch.alone is not None:
                return batch
        return batch

    def _take(self, batch: _Batch, entry: Entry, size: int) -> bool:
        """Add an entry to the batch, or say that it must wait for the next."""
        kinds = entry.keys() & {"m", "p", "g"}
        if not kinds or "run" in entry:
            is_entry = bool(entry.keys() - {"opened", "journal", "t"}) and "id" not in entry
            if is_entry and batch.count:
                return False
            batch.alone = entry if is_entry else None
            return True
        values = entry.get("m", {}), entry.get("p", {}), entry.get("g", {})
        if batch.count and (
            size > SIZE
            or len(batch.metrics) + len(values[0]) > METRICS - OTHERS
            or len(batch.params.keys() | values[1].keys()) > OTHERS // 2
            or len(batch.tags.keys() | values[2].keys()) > OTHERS // 2
            or any(batch.params.get(name, value) != value for name, value in values[1].items())
        ):
            return False
        batch.metrics += _metrics(entry)
        batch.params |= values[1]
        batch.tags |= values[2]
        return True

    # Sending

    def _send_batch(self, batch: _Batch) -> None:
        params = self._new_params(batch.params)
        metrics = batch.metrics
        tags = [RunTag(name, value) for name, value in batch.tags.items()]
        while metrics or params or tags:
            # One entry may hold more than a request.
            parts = metrics[: METRICS - OTHERS], params[: OTHERS // 2], tags[: OTHERS // 2]
            metrics, params, tags = metrics[len(parts[0]) :], params[len(parts[1]) :], tags[len(parts[2]) :]
            self._log(*parts)

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
            for part in parts:  # one bad entry spoils the batch
                self._log(*part)
        if self._params is not None:
            self._params |= {param.key: param.value for param in params}

    def _new_params(self, params: dict[str, str]) -> list[Param]:
        """A parameter cannot be changed: another value, as of a resumed run, is kept under a name of its own."""
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

    def _send_alone(self, entry: Entry) -> None:
        run_id = str(entry.get("run", self.run_id))
        try:
            self._send_kind(entry, run_id)
        except MlflowException as error:
            self._raise_outage(error, own="run" not in entry)
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
                _metrics(entry),
                [Param(name, value) for name, value in entry.get("p", {}).items()],
                [RunTag(name, value) for name, value in entry.get("g", {}).items()],
            )

    def _send_file(self, entry: Entry, run_id: str) -> None:
        copy = self.journal.local(entry)
        if not copy.exists():
            self._reject(entry, "its copy is not there any more")
            return
        try:
            self.client.log_artifact(run_id, str(copy), entry["to"] or None)
        except Exception as error:
            self.client.get_run(run_id)  # raises if it is the server that does not answer
            log.warning("artifact %s cannot be stored now: %s", copy.name, mask(str(error)))
            self._deferred.append(entry)
            return
        self.journal.release_copy(entry)

    def _raise_outage(self, error: MlflowException, own: bool = True) -> None:
        """Raise the error again unless it is these data that are wrong."""
        code = _code(error)
        if not 400 <= code < 500 or (code in _OUTAGES and own):
            raise error
        if own and self.client.get_run(str(self.run_id)).info.lifecycle_stage != "active":
            raise MlflowException(f"run {self.run_id} was deleted on the server") from error

    def _reject(self, what: Any, why: object) -> None:
        self.rejected += 1
        log.warning("MLflow refuses %s: %s", mask(str(what)), mask(str(why)))

    def _acknowledge(self) -> None:
        self._known_id = self.run_id
        state = {"run_id": self.run_id, "offset": self._offset, "rejected": self.rejected, "deferred": self._deferred}
        self.journal.acknowledge(self._server, state)


def _code(error: MlflowException) -> int:
    return int(error.get_http_status_code())


def _metrics(entry: Entry) -> list[Metric]:
    of = entry.get("of", {})
    return [Metric(name, value, entry["t"], entry["s"], **of) for name, value in entry.get("m", {}).items()]


def _dataset(value: dict[str, Any]) -> DatasetInput:
    tags = value.get("tags", {})
    pairs = tags.items() if isinstance(tags, dict) else ((tag["key"], tag["value"]) for tag in tags)
    return DatasetInput(Dataset(**value["dataset"]), [InputTag(key, text) for key, text in pairs])
