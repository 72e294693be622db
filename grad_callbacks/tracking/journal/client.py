"""An MLflow client that writes into a journal."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from grad_callbacks.tracking.journal.entries import batch_entries, metrics_entry, params_entry, status_entry, tags_entry
from grad_callbacks.tracking.journal.format import Entry, now
from grad_callbacks.tracking.journal.names import legal_name, legal_path, legally_named
from grad_callbacks.tracking.journal.values import plain, text_of
from grad_callbacks.tracking.secrets.masking import mask
from grad_callbacks.tracking.store import open_store

log = logging.getLogger("grad_callbacks")


class Recorder(Protocol):
    """Takes the entries; see ``Writer``."""

    def record(self, entry: Entry, run_id: str | None) -> None:
        """Take one entry of a run."""

    def copy_artifact(self, local: Path) -> Entry:
        """Copy a file, and return the fields of its entry."""

    def server_id(self, run_id: str) -> str:
        """The server's id of a run that may be given by its journal's."""

    def is_fresh(self, run_id: str) -> bool:
        """True if everything in the run was logged by this process."""

    def is_table(self, path: str) -> None:
        """Keep the last copy of this artifact, a table, to which rows may be added."""

    @property
    def copies(self) -> dict[str, Path]:
        """The journal's last copy of each artifact of its run, by the artifact's path."""


class JournalingClient(MlflowClient):
    """An ``MlflowClient`` whose writing calls go to a journal, return at once and never raise because of a server.

    Reading calls go to the server and wait for it. A run may be given by its journal's or its server's id. Calls that
    create something else on the server (experiments, runs, models, traces) are MLflow's own.

    Args:
        uri: The tracking address.
        recorder: Takes the entries.
    """

    def __init__(self, uri: str, recorder: Recorder) -> None:
        # The first reading call creates MLflow's own state: for SQLite that opens the file and creates the tables.
        self._uri = uri
        self._recorder = recorder
        self._tables = _Tables(self, recorder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_uri" not in self.__dict__ or "_tracking_client" in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        open_store(self._uri)
        MlflowClient.__init__(self, self._uri)
        return getattr(self, name)

    @property
    def tracking_uri(self) -> str:
        """The tracking address."""
        return self._uri

    # Writing

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Log one metric."""
        of = {"dataset_name": dataset_name, "dataset_digest": dataset_digest, "model_id": model_id}
        self.log_metrics(run_id, {key: value}, step, timestamp, **of)

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, Any], step: int | None = None, timestamp: int | None = None, **of: Any
    ) -> None:
        """Log metrics of one step, as one entry of the journal."""
        entry = metrics_entry(metrics, step, timestamp, **of)
        if entry["m"]:
            self._recorder.record(entry, run_id)

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Log one parameter."""
        self.log_params(run_id, {key: value})
        return value

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; one of more than 6000 characters is cut, and logged in full under ``params/``."""
        entry, long = params_entry(params)
        if entry["p"]:
            self._recorder.record(entry, run_id)
        for name, text in long.items():
            self.log_text(run_id, text, f"params/{name}.txt")

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        """Set one tag."""
        self._recorder.record(tags_entry({key: value}), run_id)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete one tag."""
        self._recorder.record({"untag": legal_name(key)}, run_id)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Log metrics, parameters and tags."""
        if params:
            self.log_params(run_id, {param.key: param.value for param in params})
        if tags:
            self._recorder.record(tags_entry({tag.key: tag.value for tag in tags}), run_id)
        for entry in batch_entries(metrics):
            self._recorder.record(entry, run_id)

    def log_artifact(self, run_id: str, local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Log a file, or a folder under its name."""
        local = Path(local_path)
        if local.is_dir():
            self.log_artifacts(run_id, str(local), posixpath.join(artifact_path or "", local.name))
            return
        try:
            with legally_named(local) as file:
                entry = self._recorder.copy_artifact(file)
        except (OSError, ValueError) as error:
            log.warning("artifact %s is not logged: %s", text_of(local), mask(text_of(error)))
            return
        self._recorder.record(entry | {"to": legal_path(artifact_path or "")}, run_id)

    def log_artifacts(self, run_id: str, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Log all files in a folder and below."""
        folder = Path(local_dir)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                below = file.parent.relative_to(folder).as_posix()
                place = posixpath.normpath(posixpath.join(artifact_path or "", below))
                self.log_artifact(run_id, file, "" if place == "." else place)

    def log_dict(self, run_id: str, dictionary: Any, artifact_file: str) -> None:
        """Log a dictionary as JSON or YAML, its secrets masked."""
        super().log_dict(run_id, mask(plain(dictionary, leaves_as_text=True)), artifact_file)

    def log_table(self, run_id: str, data: Any, artifact_file: str) -> None:
        """Log a table; if the run has one of that name, its rows are added to it."""
        try:
            self._tables.log_table(run_id, data, legal_path(artifact_file))
        except Exception as error:  # of a value that JSON cannot hold
            log.warning("table %s is not logged: %s", text_of(artifact_file), mask(text_of(error)))

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """Note how the run ended."""
        self._recorder.record(status_entry(status or "FINISHED", end_time), run_id)

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Change the run's status or name."""
        if status is not None:
            self._recorder.record(status_entry(status), run_id)
        if name is not None:
            self._recorder.record({"name": text_of(name)}, run_id)

    def log_inputs(self, run_id: str, datasets: Sequence[Any] | None = None, models: Any = None) -> None:
        """Log data sets; models go to the server directly."""
        if datasets:
            self._recorder.record({"datasets": [dataset.to_dictionary() for dataset in datasets], "t": now()}, run_id)
        if models:
            _tolerant(super().log_inputs, self._recorder.server_id(run_id), None, models)

    def log_outputs(self, run_id: str, models: Any) -> None:
        """Link models that the run has created, on the server directly."""
        _tolerant(super().log_outputs, self._recorder.server_id(run_id), models)

    def _log_artifact_async_helper(self, run_id: str, artifact_file: str, artifact: Any) -> None:
        with self._log_artifact_helper(run_id, artifact_file) as place:  # copying into the journal needs no thread
            artifact.save(place)

    @contextmanager
    def _log_artifact_helper(self, run_id: str, artifact_file: str) -> Iterator[str]:
        """Where MLflow writes what it then logs as a file; what cannot be written is a warning."""
        try:
            with super()._log_artifact_helper(run_id, legal_path(artifact_file)) as place:
                yield place
        except Exception as error:  # of a text that is none, a value that JSON cannot hold, a full disk
            log.warning("artifact %s is not logged: %s", text_of(artifact_file), mask(text_of(error)))

    def is_fresh(self, run_id: str) -> bool:
        """True if everything in the run was logged by this process."""
        return self._recorder.is_fresh(run_id)

    # Reading

    def get_run(self, run_id: str) -> Run:
        """Ask the server for the run."""
        return super().get_run(self._recorder.server_id(run_id))

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Ask the server for all values of a metric."""
        history: list[Metric] = super().get_metric_history(self._recorder.server_id(run_id), key)
        return history

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
        """Ask the server for the run's artifacts."""
        files: list[Any] = super().list_artifacts(self._recorder.server_id(run_id), path)
        return files

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        """Load artifacts from the server."""
        return str(super().download_artifacts(self._recorder.server_id(run_id), path, dst_path))


class _Tables(MlflowClient):
    """MLflow's ``log_table``, which reads the old table first: from its last copy, or from the server if resumed."""

    def __init__(self, client: JournalingClient, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder
        self._tags: dict[str, str] = {}
        self._is_local = False  # the table's rows so far are all in the journal's copy

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
        copies = [SimpleNamespace(path=place) for place, copy in [*self._recorder.copies.items()] if copy.exists()]
        if self._is_local:
            return copies
        return copies + (_tolerant(self._client.list_artifacts, run_id, path) or [])

    def log_table(self, run_id: str, data: Any, artifact_file: str) -> None:
        place = posixpath.normpath(str(artifact_file))
        copy = self._recorder.copies.get(place)
        self._is_local = self._recorder.is_fresh(run_id) and (copy is None or copy.exists())
        self._recorder.is_table(place)
        super().log_table(run_id, data, artifact_file)

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        copy = self._recorder.copies.get(path)
        if copy is not None and copy.exists():
            return str(copy)
        return self._client.download_artifacts(run_id, path, dst_path)

    def get_run(self, run_id: str) -> Any:
        run = None if self._recorder.is_fresh(run_id) else _tolerant(self._client.get_run, run_id)
        return SimpleNamespace(data=SimpleNamespace(tags=(run.data.tags if run else {}) | self._tags))

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        self._tags[key] = value
        self._client.set_tag(run_id, key, value)

    def log_artifact(self, run_id: str, local_path: Any, artifact_path: str | None = None) -> None:
        self._client.log_artifact(run_id, local_path, artifact_path)


def _tolerant(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as error:
        log.warning("MLflow does not answer: %s", mask(str(error)))
        return None
