"""Alerts and interventions as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grad_callbacks.events import Alert, Intervention

ALERT_COLUMNS = ("step", "kind", "severity", "message", "cause", "advice", "layers", "evidence", "optimizer")
INTERVENTION_COLUMNS = ("step", "remedy", "alert_kind", "detail", "optimizer")


def alert_rows(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """One row per alert, with the columns of :data:`ALERT_COLUMNS`; layers and evidence as text."""
    texts = [{"layers": ", ".join(alert.layers), "evidence": _pairs(alert.evidence)} for alert in alerts]
    return [_chosen(alert.to_dict() | text, ALERT_COLUMNS) for alert, text in zip(alerts, texts, strict=True)]


def intervention_rows(interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    """One row per intervention, with the columns of :data:`INTERVENTION_COLUMNS`; the detail as text."""
    return [_chosen(one.to_dict() | {"detail": _pairs(one.detail)}, INTERVENTION_COLUMNS) for one in interventions]


def _chosen(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {column: row[column] for column in columns}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
