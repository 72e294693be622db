"""The alerts of all runs of a store, as rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grad_callbacks.tracking.comparison.labels import shown
from grad_callbacks.tracking.journal.tags import TRIAL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from rich.table import Table

COLUMNS = ("experiment", "run", "run_id", "step", "kind", "severity", "cause", "outcome")
_TABLE = "gradients/alerts.json"
_WITH_ALERTS = 'tags."grad.first_alert_step" != ""'
_PAGE = 1000  # runs that are asked for at once: MLflow's own default
_SHOWN = ("run", "step", "kind", "severity", "cause", "outcome")


def all_alerts(client: MlflowClient, experiment: str | None = None) -> list[dict[str, Any]]:
    """Return one row per alert, with :data:`COLUMNS`: the newest run first, its alerts in the order of their steps.

    Of a run whose table of alerts cannot be read, the tags tell the first alert; its severity is empty then.

    Args:
        client: Of the store.
        experiment: Only runs of this MLflow experiment.

    Raises:
        ValueError: If there is no such experiment; the message names the existing ones.
    """
    found = {each.experiment_id: each.name for each in client.search_experiments()}
    if experiment is not None:
        chosen = {key: name for key, name in found.items() if name == experiment}
        if not chosen:
            names = ", ".join(map(repr, found.values())) or "none"
            raise ValueError(f"there is no experiment {experiment!r} in this store; there are: {names}")
        found = chosen
    return [row for run in _runs(client, list(found)) for row in _rows(client, run, found[run.info.experiment_id])]


def alerts_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows for a terminal.

    Args:
        rows: From :func:`all_alerts`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    view = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in _SHOWN:
        view.add_column(name, justify="right" if name == "step" else "left", overflow="fold")
    for row in rows:
        view.add_row(*(Text(shown(row[name] if row[name] not in (None, "") else "–")) for name in _SHOWN))
    return view


def _runs(client: MlflowClient, experiments: list[str]) -> Iterator[Run]:
    token: str | None = None
    while experiments:
        page = client.search_runs(
            experiments, _WITH_ALERTS, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from (run for run in page if TRIAL_TAG not in run.data.tags)
        token = page.token
        if not token:
            return


def _rows(client: MlflowClient, run: Run, experiment: str) -> Iterator[dict[str, Any]]:
    tags = run.data.tags
    known = {"experiment": experiment, "run": run.info.run_name, "run_id": run.info.run_id}
    known["outcome"] = tags.get("grad.outcome", "")
    first = {"step": tags.get("grad.first_alert_step", ""), "kind": tags.get("grad.verdict", "")}
    for alert in _table(client, run.info.run_id) or [first | {"severity": "", "cause": tags.get("grad.cause", "")}]:
        row = known | {name: alert.get(name) for name in ("step", "kind", "severity", "cause")}
        yield {name: row[name] for name in COLUMNS} | {"step": _number(row["step"])}


def _table(client: MlflowClient, run_id: str) -> list[dict[str, Any]]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(client.download_artifacts(run_id, _TABLE, folder)).read_text(encoding="utf-8")
        table = json.loads(text)
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    except Exception:  # removed, of another version, or on a server that is down: the tags tell the first alert
        return []


def _number(step: object) -> int | None:
    try:
        return int(str(step))
    except ValueError:
        return None
