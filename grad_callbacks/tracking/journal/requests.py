"""The requests that bring a journal's entries into a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking.journal.artifacts import ArtifactSender
from grad_callbacks.tracking.journal.batches import MAX_METRICS, MAX_PARAMS, MAX_TAGS, Batch
from grad_callbacks.tracking.journal.descriptions import description, shown
from grad_callbacks.tracking.journal.errors import Verdict, is_forbidden, is_missing, judge
from grad_callbacks.tracking.journal.format import ENDED, Entry
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.sendable import Refused, dataset, metrics_of, sendable
from grad_callbacks.tracking.journal.tags import JOURNAL_TAG
from grad_callbacks.tracking.secrets.masking import mask
from grad_callbacks.tracking.store import open_store

log = logging.getLogger("grad_callbacks")

MAX_DEFERRED = 1000  # entries to try again; if more fail, it is the server that is broken

Value = Metric | Param | RunTag


class Requests:
    """Sends entries to one run. What the server refuses is set aside and counted; what comes after it goes on.

    Sending an entry twice changes nothing: MLflow's databases keep one of several metrics that agree in name, value,
    time and step, and artifacts are overwritten; a parameter that has another value already gets a name of its own.

    Args:
        uri: The tracking address.
        journal: The run's journal, which holds copies of artifacts.
        deferred: Entries that could not be stored although the server answered.
        rejected: How many values were refused so far.

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
        self._has_warned = False
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
        else:
            metrics, params = batch.metrics, self._new_params(batch.params)
            tags = [RunTag(name, value) for name, value in batch.tags.items()]
            while metrics or params or tags:  # one entry may hold more than a request takes
                self._log([*metrics[:MAX_METRICS], *params[:MAX_PARAMS], *tags[:MAX_TAGS]])
                metrics, params, tags = metrics[MAX_METRICS:], params[MAX_PARAMS:], tags[MAX_TAGS:]
        self.reject(batch.refused)

    def retry_deferred(self) -> None:
        """Try again to store what could not be stored before.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        waiting, self.deferred = self.deferred, []
        try:
            while waiting:
                entry, refused = sendable(waiting[0])  # the note of what was sent may come from anybody, too
                if entry:
                    self._send_single(entry)
                self.reject(refused)
                waiting.pop(0)
        finally:
            self.deferred += waiting

    def reject(self, refused: Sequence[Refused]) -> None:
        """Count values that can never be stored; the first one is logged."""
        self.rejected += len(refused)
        if refused and not self._has_warned:
            self._has_warned = True
            what, why = refused[0]
            log.warning("MLflow cannot store %s: %s. It is left out, and so is any other such value", what, why)

    def _log(self, values: list[Value]) -> None:
        """Log values of the run; if they are refused, send half as many at once, until the one to blame is alone."""
        if not values:
            return
        try:
            self._log_batch(values)
        except Exception as error:
            verdict = self._verdict(error)
            if len(values) > 1:
                self._log(values[: len(values) // 2])
                self._log(values[len(values) // 2 :])
            elif verdict is Verdict.UNCLEAR:
                self._defer(_entry_of(values[0]), error)
            else:
                self.reject([(description(_entry_of(values[0])), _reason(error))])
            return
        if self._params is not None:
            self._params |= {value.key: value.value for value in values if isinstance(value, Param)}

    def _log_batch(self, values: list[Value]) -> None:
        self.client.log_batch(
            str(self.run_id),
            [value for value in values if isinstance(value, Metric)],
            [value for value in values if isinstance(value, Param)],
            [value for value in values if isinstance(value, RunTag)],
        )

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
        if run_id != self.run_id and not self._journal.is_trusted:
            self.reject(
                [
                    (
                        f"{description(entry)} of the run {shown(run_id)}",
                        "this journal is not yours, and it is another run's",
                    )
                ]
            )
            return
        try:
            self._send_kind(entry, run_id)
        except Exception as error:
            if "run" in entry and is_missing(error):
                self.reject([(f"{description(entry)} of the run {shown(run_id)}", _reason(error))])
                return
            if "run" in entry and is_forbidden(error):
                self.client.get_run(str(self.run_id))  # raises if everything is forbidden
                verdict = Verdict.UNCLEAR
            else:
                verdict = self._verdict(error)
            if verdict is Verdict.UNCLEAR:
                self._defer(entry, error)
            else:
                self.reject([(description(entry), _reason(error))])

    def _send_kind(self, entry: Entry, run_id: str) -> None:
        if "file" in entry:
            self._send_file(entry, run_id)
        elif "untag" in entry:
            if "run" in entry or entry["untag"] in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, entry["untag"])
        elif "status" in entry:
            if entry.get("guessed") and self.client.get_run(run_id).info.status in ENDED:
                return  # the server knows better
            if entry["status"] in ("RUNNING", "SCHEDULED"):
                self.client.update_run(run_id, entry["status"])
            else:
                self.client.set_terminated(run_id, entry["status"], entry["t"])
        elif "name" in entry:
            self.client.update_run(run_id, name=entry["name"])
        elif "datasets" in entry:
            self.client.log_inputs(run_id, [dataset(value) for value in entry["datasets"]])
        else:
            self.client.log_batch(
                run_id,
                metrics_of(entry),
                [Param(name, value) for name, value in entry.get("p", {}).items()],
                [RunTag(name, value) for name, value in entry.get("g", {}).items()],
            )

    def _send_file(self, entry: Entry, run_id: str) -> None:
        sender = ArtifactSender(self.client, self._journal)
        refused, delay = sender.send(entry, run_id)
        if refused:
            self.reject([refused])
        elif delay is not None:
            self._defer(entry, delay)

    def _defer(self, entry: Entry, error: Exception) -> None:
        """Set an entry aside, to be tried again at the end and by each later sync."""
        if len(self.deferred) >= MAX_DEFERRED:
            raise error
        log.warning("%s cannot be stored now, and is tried again later: %s", description(entry), _reason(error))
        self.deferred.append(entry)

    def _verdict(self, error: Exception) -> Verdict:
        """Judge an error of a request to the run.

        Raises:
            Exception: The error itself, unless the data are to blame.
        """
        verdict = judge(error)
        if verdict is Verdict.OUTAGE:
            raise error
        if self.client.get_run(str(self.run_id)).info.lifecycle_stage != "active":
            raise MlflowException(f"run {self.run_id} was deleted on the server") from error
        if verdict is Verdict.UNCLEAR:
            self._check_that_it_takes_others(error)
        return verdict

    def _check_that_it_takes_others(self, error: Exception) -> None:
        """Raise the error if the server does not take a tag either that the run has already."""
        try:
            self._log_batch([RunTag(JOURNAL_TAG, self._journal.id)])
        except Exception:
            raise error from None


def _entry_of(value: Value) -> Entry:
    if isinstance(value, Metric):
        of: dict[str, Any] = {
            name: getattr(value, name)
            for name in ("model_id", "dataset_name", "dataset_digest")
            if getattr(value, name)
        }
        entry: Entry = {"m": {value.key: value.value}, "s": value.step, "t": value.timestamp}
        return entry | ({"of": of} if of else {})
    return {"p" if isinstance(value, Param) else "g": {value.key: value.value}}


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return str(mask(lines[0][:300]))
