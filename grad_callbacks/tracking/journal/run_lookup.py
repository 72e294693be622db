"""Finding a journal's run on a server, or creating it."""

from __future__ import annotations

import logging

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.tags import JOURNAL_TAG, PARENT_TAG

log = logging.getLogger("grad_callbacks")


class RunLookup:
    """Makes sure that a journal has exactly one run on a server, also when a request was served but not answered.

    Args:
        journal: The run's journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._has_requested = False  # a run, and the answer may have been lost

    def known(self, client: MlflowClient, known_id: str | None) -> Run | None:
        """Return the run with the id that the server gave it earlier; None if it is not there (any more)."""
        for run_id in (known_id, self._journal.header.get("run_id")):
            if run_id:
                try:
                    return client.get_run(run_id)
                except MlflowException as error:
                    if status_code(error) != 404:
                        raise
                    log.warning("run %s is not on the MLflow server: it is created again from its journal", run_id)
        return None

    def find_or_create(self, client: MlflowClient) -> Run:
        """Return the run that carries the journal's id as a tag; create it if there is none."""
        run = self._found(client) or self._created(client)
        self._has_requested = False
        return run

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
        tags = header.get("tags", {}) | {JOURNAL_TAG: self._journal.id}
        if PARENT_TAG in tags:
            tags[PARENT_TAG] = _server_id(client, tags[PARENT_TAG])
        run = client.create_run(
            self._experiment_id(client), start_time=header.get("start"), tags=tags, run_name=header.get("name")
        )
        return (self._found(client) if had_requested else None) or run

    def _experiment_id(self, client: MlflowClient) -> str:
        name = self._journal.header["experiment"]
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        try:
            return str(client.create_experiment(name, self._journal.header.get("artifact_location")))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)  # another process may just have created it
            if experiment is None:
                raise error
            return str(experiment.experiment_id)


def status_code(error: MlflowException) -> int:
    """Return the HTTP status of an error."""
    return int(error.get_http_status_code())


def _server_id(client: MlflowClient, run_id: str) -> str:
    """Return the server's id of a run that may have been created offline, under its journal's id."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = _tagged(client, experiments, run_id)
    return str(found[0].info.run_id) if found else run_id


def _tagged(client: MlflowClient, experiments: list[str], journal_id: str) -> list[Run]:
    query = f"tags.`{JOURNAL_TAG}` = '{journal_id}'"
    return sorted(client.search_runs(experiments, query), key=lambda run: str(run.info.run_id))
