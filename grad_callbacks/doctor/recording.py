"""MLflow: a parent run for the search, a child run for each training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grad_callbacks.tracking import JournaledMLFlowLogger, default_artifacts, prepare_store
from grad_callbacks.tracking.comparison.compare import SWEPT
from grad_callbacks.tracking.journal.tags import PARENT_TAG
from grad_callbacks.tracking.secrets.masking import mask_address

EXPERIMENT = "grad-callbacks-doctor"
NOTE = "mlflow-parent.json"  # in the search's folder: a second call continues its parent
CURE = "cure"  # the parameter that tells the child runs apart


@dataclass(frozen=True)
class Place:
    """Where the trainings of a search are logged.

    Attributes:
        uri: MLflow tracking address.
        parent: Id of the parent run.
        experiment: Name of the experiment.
    """

    uri: str
    parent: str
    experiment: str = EXPERIMENT

    def child(self, name: str, seed: int) -> JournaledMLFlowLogger:
        """Return the logger of one training, whose run is opened."""
        tags = {PARENT_TAG: self.parent, f"sweep.{CURE}": name}
        logger = JournaledMLFlowLogger(self.experiment, name, self.uri, tags, artifact_location=_artifacts(self.uri))
        logger.log_hyperparams({CURE: name, "seed": seed})
        return logger

    def __str__(self) -> str:
        """In words."""
        return f"MLflow run {self.parent} of the experiment {self.experiment!r}, at {mask_address(self.uri)}"


class ParentRun:
    """The run of a search.

    Args:
        uri: MLflow tracking address.
        name: Of the run.
        folder: Of the search.

    Attributes:
        place: Where the child runs go.
    """

    def __init__(self, uri: str, name: str, folder: Path) -> None:
        if uri.startswith("sqlite:"):
            prepare_store(uri)
        note = folder / NOTE
        known = json.loads(note.read_text()) if note.exists() else {}
        run_id = known.get("run_id") if known.get("uri") == mask_address(uri) else None
        self._logger = JournaledMLFlowLogger(
            EXPERIMENT, f"doctor {name}", uri, artifact_location=_artifacts(uri), run_id=run_id
        )
        self.place = Place(uri, str(self._logger.run_id))
        self._tag(SWEPT, f"sweep.{CURE}")
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"run_id": self.place.parent, "uri": mask_address(uri)}))

    def record(self, text: str, result: dict[str, Any], tags: dict[str, str]) -> None:
        """Log the prescription: as the run's description, as files, and as tags."""
        self._tag("mlflow.note.content", text[:8000])  # MLflow's limit
        for name, value in tags.items():
            self._tag(name, value)
        client, run_id = self._logger.experiment, str(self._logger.run_id)
        client.log_text(run_id, text, "doctor/prescription.md")
        client.log_dict(run_id, result, "doctor/result.json")

    def end(self, status: str) -> None:
        """End the run: ``"success"``, ``"failed"`` or ``"killed"``."""
        self._logger.finalize(status)
        self._logger.close()

    def _tag(self, name: str, value: str) -> None:
        self._logger.experiment.set_tag(str(self._logger.run_id), name, value)


def _artifacts(uri: str) -> str | None:
    """Where a new experiment keeps its artifacts: for a file beside it, as all commands do; a server knows itself."""
    return default_artifacts() if uri.startswith("sqlite:") else None
