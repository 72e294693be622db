"""The story of a run, as it is written into its MLflow run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import RunTag

from grad_callbacks.alerts import Alert, Outcome, Verdict, leading
from grad_callbacks.interventions import Intervention
from grad_callbacks.tracking.pictures import heatmap

FOLDER = "gradients"
NOTE_LIMIT = 8000  # characters that MLflow keeps of a tag


@dataclass(frozen=True)
class Story:
    """What a monitor or guard has to tell about a finished run; see their attributes of the same names."""

    verdict: Verdict
    outcome: Outcome
    alerts: tuple[Alert, ...]
    interventions: tuple[Intervention, ...]
    history: pd.DataFrame
    report: str

    def tags(self) -> dict[str, str]:
        """The tags to filter and group runs by."""
        remedies = dict.fromkeys(intervention.remedy for intervention in self.interventions)
        tags = {
            "grad.verdict": self.verdict,
            "grad.outcome": self.outcome,
            "grad.remedies": ", ".join(remedies) or "none",
        }
        if self.alerts:
            tags["grad.first_alert_step"] = str(self.alerts[0].step)
            tags["grad.cause"] = leading(self.alerts).cause
        return tags


def record_story(client: MlflowClient, run_id: str, story: Story) -> None:
    """Write tags, description, tables, history and picture.

    =================================  =====================================================
    tags                               ``grad.verdict``, ``grad.outcome``, ``grad.remedies``,
                                       ``grad.first_alert_step``, ``grad.cause``
    description                        the report
    ``gradients/alerts.json``          table, one row per alert
    ``gradients/interventions.json``   table, one row per intervention
    ``gradients/history.parquet``      table, one row per step and layer
    ``gradients/heatmap.png``          layer by step, log10 of the norm, alerts marked
    ``gradients/report.md``            the report
    =================================  =====================================================
    """
    tags = story.tags() | {"mlflow.note.content": _cut(story.report)}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    client.log_text(run_id, story.report, f"{FOLDER}/report.md")
    client.log_table(run_id, _alerts(story.alerts), f"{FOLDER}/alerts.json")
    client.log_table(run_id, _interventions(story.interventions), f"{FOLDER}/interventions.json")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.parquet"
        story.history.to_parquet(path)
        client.log_artifact(run_id, str(path), FOLDER)
    if len(story.history):
        client.log_figure(run_id, heatmap(story.history, story.alerts, story.interventions), f"{FOLDER}/heatmap.png")


def _cut(report: str) -> str:
    return report if len(report) <= NOTE_LIMIT else report[: NOTE_LIMIT - 3].rsplit("\n", 1)[0] + "\n…"


def _alerts(alerts: Sequence[Alert]) -> pd.DataFrame:
    columns = ["step", "kind", "severity", "message", "cause", "advice", "layers", "evidence", "optimizer"]
    rows = [
        {**alert.to_dict(), "layers": ", ".join(alert.layers), "evidence": _pairs(alert.evidence)} for alert in alerts
    ]
    return pd.DataFrame(rows, columns=columns)


def _interventions(interventions: Sequence[Intervention]) -> pd.DataFrame:
    columns = ["step", "remedy", "alert_kind", "detail", "optimizer"]
    rows = [{**intervention.to_dict(), "detail": _pairs(intervention.detail)} for intervention in interventions]
    return pd.DataFrame(rows, columns=columns)


def _pairs(values: dict[str, float]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
