"""Sending a journal's copies of artifacts."""

from __future__ import annotations

from mlflow import MlflowClient

from grad_callbacks.tracking.journal.copies import UnsafePath, artifact_path, is_whole
from grad_callbacks.tracking.journal.descriptions import description
from grad_callbacks.tracking.journal.errors import Verdict, judge
from grad_callbacks.tracking.journal.format import Entry
from grad_callbacks.tracking.journal.journal import Journal
from grad_callbacks.tracking.journal.sendable import Refused


class ArtifactSender:
    """Sends copies of artifacts to a server.

    Args:
        client: MLflow's own client to the server.
        journal: Its copies are sent, and nothing else.
    """

    def __init__(self, client: MlflowClient, journal: Journal) -> None:
        self._client = client
        self._journal = journal

    def send(self, entry: Entry, run_id: str) -> tuple[Refused | None, Exception | None]:
        """Send the copy that an entry names, or see that the server has it.

        Args:
            entry: Checked by :func:`.sendable.sendable`.
            run_id: The server's id of a run.

        Returns:
            What can never be stored and why, and what prevents it now; None and None if it was stored.

        Raises:
            Exception: Whatever MLflow raises if the server does not answer.
        """
        try:
            copy = self._journal.copies.path_of(entry)
        except UnsafePath as error:
            return (description(entry), str(error)), None
        if not copy.exists():
            known = self._has(run_id, entry)
            return (None if known else (description(entry), "its copy is missing")), None
        if not is_whole(copy, entry):
            return (description(entry), "its copy in the journal is damaged"), None
        try:
            self._client.log_artifact(run_id, str(copy), entry["to"] or None)
            self._verify(run_id, entry, copy.stat().st_size)
        except Exception as error:
            if judge(error) is Verdict.REFUSED:
                return (description(entry), str(error)), None
            self._client.get_run(run_id)  # raises if it is the server that does not answer
            return None, error
        self._journal.release_copy(entry)
        return None, None

    def _verify(self, run_id: str, entry: Entry, size: int) -> None:
        """See that an artifact came to the server: a login page or a proxy may have answered the upload.

        Raises:
            FileNotFoundError: If it is not there, or not whole.
            Exception: Whatever MLflow raises if the server does not answer.
        """
        if not str(self._client.get_run(run_id).info.artifact_uri).startswith(("mlflow-artifacts:", "http")):
            return
        found = {file.path: file.file_size for file in self._client.list_artifacts(run_id, entry["to"] or None)}
        place = artifact_path(entry)
        if place not in found or found[place] not in (None, size):
            raise FileNotFoundError(f"the server said that it has stored {place}, and does not have it")

    def _has(self, run_id: str, entry: Entry) -> bool:
        """True if the server has the artifact: its copy was removed when it was sent."""
        place = artifact_path(entry)
        return any(file.path == place for file in self._client.list_artifacts(run_id, entry["to"] or None))
