"""Finding a journal's run on a server, or creating it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking.journal.descriptions import shown
from grad_callbacks.tracking.journal.errors import Verdict, is_missing, judge
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.sendable import sendable
from grad_callbacks.tracking.journal.tags import JOURNAL_TAG, PARENT_TAG

log = logging.getLogger("grad_callbacks")

_SQLITE = "sqlite:///"


class RunLookup:
    """Makes sure that a journal has exactly one run on a server, also when a request was served but not answered.

    A journal that is not the user's own leads to no run but its own, and does not say where artifacts are kept.

    Args:
        journal: The run's journal.
        uri: The tracking address.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self._journal = journal
        self._uri = uri
        self._has_requested = False  # a run, and the answer may have been lost

    def known(self, client: MlflowClient, known_id: str | None) -> Run | None:
        """Return the run with the id that the server gave it earlier; None if it is not there (any more)."""
        for run_id in filter(None, (known_id, self._journal.header.get("run_id"))):
            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if not is_missing(error):
                    raise
                log.warning("run %s is not on the MLflow server: it is created again from its journal", run_id)
                continue
            if self._may_write(run):
                return run
            log.warning(
                "the journal %s was not written by you, so it is not sent into the run %s that it names, but into a "
                "new one; `grad-callbacks sync --trust` sends it there",
                self._journal.path.name,
                run_id,
            )
        return None

    def find_or_create(self, client: MlflowClient) -> Run:
        """Return the run that carries the journal's id as a tag; create it if there is none."""
        run = self._found(client) or self._created(client)
        self._has_requested = False
        return run

    def _may_write(self, run: Run) -> bool:
        journal = self._journal
        return (
            journal.is_trusted or run.info.run_id in journal.named_runs or run.data.tags.get(JOURNAL_TAG) == journal.id
        )

    def _found(self, client: MlflowClient) -> Run | None:
        experiment = client.get_experiment_by_name(self._journal.header["experiment"])
        if experiment is None:
            return None
        runs = _tagged(client, [experiment.experiment_id], self._journal.id)
        for duplicate in runs[1:]:  # of a request that timed out, but was served
            client.delete_run(duplicate.info.run_id)
        return runs[0] if runs else None

    def _created(self, client: MlflowClient) -> Run:
        header = self._journal.header
        had_requested, self._has_requested = self._has_requested, True
        tags: dict[str, str] = sendable({"g": header.get("tags", {}) | {JOURNAL_TAG: self._journal.id}})[0]["g"]
        if PARENT_TAG in tags:
            tags[PARENT_TAG] = _server_id(client, tags[PARENT_TAG])
        settings: dict[str, Any] = {"start_time": header.get("start"), "run_name": header.get("name")}
        experiment_id = self._experiment_id(client)
        try:
            run = client.create_run(experiment_id, tags=tags, **settings)
        except Exception as error:
            if judge(error) in (Verdict.OUTAGE, Verdict.UNCLEAR):
                raise
            run = client.create_run(experiment_id, tags={JOURNAL_TAG: self._journal.id}, start_time=header.get("start"))
            _add_tags(client, run, tags)
        return (self._found(client) if had_requested else None) or run

    def _experiment_id(self, client: MlflowClient) -> str:
        name = self._journal.header["experiment"]
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        try:
            return str(client.create_experiment(name, self._artifact_location()))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)  # another process may just have created it
            if experiment is None:
                raise error
            return str(experiment.experiment_id)

    def _artifact_location(self) -> str | None:
        """Where a new experiment keeps its artifacts; None if the server decides."""
        named: str | None = self._journal.header.get("artifact_location")
        if self._journal.is_trusted or named is None:
            return named
        default = None
        if self._uri.startswith(_SQLITE):
            default = (Path(self._uri.removeprefix(_SQLITE)).absolute().parent / "mlartifacts").as_uri()
        if named != default:
            log.warning(
                "the journal %s was not written by you, so its artifacts are not kept in %s as it says, but where the "
                "store keeps them; `grad-callbacks sync --trust` keeps them there",
                self._journal.path.name,
                named,
            )
        return default


def _add_tags(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    """Set tags one by one: one of them was refused."""
    for name, value in tags.items():
        try:
            client.log_batch(run.info.run_id, tags=[RunTag(name, value)])
        except MlflowException as error:
            if judge(error) is Verdict.OUTAGE:
                raise
            log.warning("MLflow cannot store the tag %s: %s", shown(name), error)


def _server_id(client: MlflowClient, run_id: str) -> str:
    """Return the server's id of a run that may have been created offline, under its journal's id."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = _tagged(client, experiments, run_id) if run_id.isascii() and run_id.isalnum() else []
    return str(found[0].info.run_id) if found else run_id


def _tagged(client: MlflowClient, experiments: list[str], journal_id: str) -> list[Run]:
    query = f"tags.`{JOURNAL_TAG}` = '{journal_id}'"
    return sorted(client.search_runs(experiments, query), key=lambda run: str(run.info.run_id))
