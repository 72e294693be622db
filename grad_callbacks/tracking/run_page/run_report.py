"""What the callbacks report of a run, written into its MLflow run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grad_callbacks.events import Alert, Intervention, Outcome, leading
from grad_callbacks.measurement.histograms import Histogram
from grad_callbacks.reporting.summary import short_names
from grad_callbacks.tracking.run_page.page import run_page
from grad_callbacks.tracking.run_page.pictures import heatmap, histogram_picture, profile_picture, steps_picture
from grad_callbacks.tracking.run_page.tables import ALERT_COLUMNS, INTERVENTION_COLUMNS, alert_rows, intervention_rows
from grad_callbacks.tracking.secrets.masking import mask

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from PIL import Image

FOLDER = "gradients"
PAGE = "run.html"
NOTE_LIMIT = 8000  # characters that MLflow keeps of a description
TAG_LIMIT = 500  # characters of a tag, so that lists of runs can show it
TAGS_OF_ALERTS = ("grad.first_alert_step", "grad.cause", "grad.layers")
MAX_PICTURES = 10  # histograms that are logged as images; the page has all of them


def _no_rows() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class RunReport:
    """What a monitor or guard reports of a finished run; see their attributes of the same names.

    Attributes:
        name: The run's name.
        summary: Headings and sentences, see :func:`grad_callbacks.reporting.summary.summarise`.
        steps: One row per step; may be empty.
        histograms: Of the gradients' entries, in order.
        environment: Versions and the like.
    """

    verdict: str
    outcome: Outcome
    alerts: tuple[Alert, ...]
    interventions: tuple[Intervention, ...]
    history: pd.DataFrame
    report: str
    name: str = ""
    summary: tuple[tuple[str, str], ...] = ()
    steps: pd.DataFrame = field(default_factory=_no_rows)
    histograms: tuple[Histogram, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """The tags to filter and group runs by."""
        remedies = dict.fromkeys(intervention.remedy for intervention in self.interventions)
        tags = {
            "grad.verdict": self.verdict,
            "grad.outcome": self.outcome,
            "grad.remedies": ", ".join(remedies) or "none",
        }
        if self.alerts:
            alert = leading(self.alerts)
            tags["grad.first_alert_step"] = str(self.alerts[0].step)
            tags["grad.cause"] = alert.cause[:TAG_LIMIT]
            tags["grad.layers"] = short_names(alert.layers)[:TAG_LIMIT]
        return tags


def record_report(client: MlflowClient, run_id: str, run: RunReport) -> None:
    """Write tags, description, tables, pictures and the page.

    =================================  =====================================================
    tags                               ``grad.verdict``, ``grad.outcome``, ``grad.remedies``,
                                       ``grad.first_alert_step``, ``grad.cause``, ``grad.layers``
    description                        the report
    ``gradients/run.html``             everything on one interactive page that needs no network
    ``gradients/heatmap.png``          layer by step, log10 of the norm, alerts marked
    ``gradients/profile.png``          gradient over depth, before and after
    ``gradients/course.png``           norm before and after clipping, learning rate, loss
    ``gradients/alerts.json``          table, one row per alert
    ``gradients/interventions.json``   table, one row per intervention
    ``gradients/history.parquet``    table, one row per step and layer
    ``gradients/steps.parquet``        table, one row per step
    ``gradients/report.md``            the report
    image ``grad/histograms``          how large the gradient's entries were, at a few steps
    =================================  =====================================================
    """
    from mlflow.entities import RunTag

    report = mask(run.report)
    tags = mask(run.tags()) | {"mlflow.note.content": note_of(report)}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    _remove_tags(client, run_id, [name for name in TAGS_OF_ALERTS if name not in tags])
    tables = {
        "alerts.json": _table(alert_rows(run.alerts), ALERT_COLUMNS),
        "interventions.json": _table(intervention_rows(run.interventions), INTERVENTION_COLUMNS),
    }
    for name, rows in tables.items():
        client.log_table(run_id, rows, f"{FOLDER}/{name}")  # makes it known to MLflow as a table
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in tables.items():  # replaces it: to the table of a continued run, MLflow has only added rows
            rows.to_json(Path(folder) / name, orient="split", index=False, date_format="iso")
        _write(run, report, Path(folder))
        client.log_artifacts(run_id, folder, FOLDER)
    for taken in _some(run.histograms):
        client.log_image(run_id, _image(histogram_picture(taken)), key="grad/histograms", step=taken.step)


def _remove_tags(client: MlflowClient, run_id: str, names: Sequence[str]) -> None:
    """Remove the tags of a part of the run that was given up, when it was continued from an earlier checkpoint."""
    from grad_callbacks.tracking.journal.client import JournalingClient

    if isinstance(client, JournalingClient):  # which knows whether there can be any, and asks no server
        stale = [] if client.is_fresh(run_id) else names
    else:
        there = client.get_run(run_id).data.tags if names else {}
        stale = [name for name in names if name in there]
    for name in stale:
        client.delete_tag(run_id, name)


def _write(run: RunReport, report: str, folder: Path) -> None:
    (folder / "report.md").write_text(report, encoding="utf-8")
    run.history.to_parquet(folder / "history.parquet")
    pictures: dict[str, Figure] = {}
    if len(run.steps):
        run.steps.to_parquet(folder / "steps.parquet")
        pictures["course"] = steps_picture(run.steps, run.alerts, run.interventions)
    if len(run.history):
        pictures["heatmap"] = heatmap(run.history, run.alerts, run.interventions)
        pictures["profile"] = profile_picture(run.history, run.alerts)
        (folder / PAGE).write_text(_page(run), encoding="utf-8")
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


def _page(run: RunReport) -> str:
    return run_page(
        run.name,
        run.verdict,
        run.outcome,
        run.summary,
        run.history,
        run.steps,
        run.alerts,
        run.interventions,
        run.histograms,
        run.environment,
    )


def _some(histograms: Sequence[Histogram]) -> Sequence[Histogram]:
    return histograms[:: -(-len(histograms) // MAX_PICTURES)] if histograms else ()


def _image(figure: Figure) -> Image.Image:
    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return Image.open(buffer)


def note_of(report: str) -> str:
    """Return the report as a run's description: with a smaller heading, and cut at a line if it is too long."""
    note = report.replace("# Gradients", "#### Gradients", 1)
    return note if len(note) <= NOTE_LIMIT else note[: NOTE_LIMIT - 3].rsplit("\n", 1)[0] + "\n…"


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(mask(list(rows)), columns=list(columns))


def story(*values: Any, **named: Any) -> RunReport:
    """Build a :class:`RunReport` from the arguments of the former ``Story``, which said ``course`` for ``steps``."""
    if "course" in named:
        named["steps"] = named.pop("course")
    return RunReport(*values, **named)
