"""The report: what happened to a run, in markdown that a person reads in a minute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grad_callbacks.events import Alert, Intervention, Outcome, TrialResult
from grad_callbacks.reporting.loss_recovery import LossRecovery
from grad_callbacks.reporting.summary import short_names, summarise

MAX_ENTRIES = 8  # alerts and interventions that are written out; the rest is counted
MAX_LAYERS = 24  # rows of the profile


def write_report(
    verdict: str,
    outcome: Outcome,
    alerts: Sequence[Alert],
    interventions: Sequence[Intervention],
    history: pd.DataFrame,
    still_wrong: Sequence[str],
    loss: LossRecovery,
    trials: Sequence[TrialResult] = (),
) -> str:
    """Return the report: a summary in five lines, the profile over depth, then alerts, trials and interventions.

    Args:
        verdict: What was wrong with the run.
        outcome: How it ended.
        alerts: In the order they were raised.
        interventions: In the order they were made.
        history: One row per step and layer.
        still_wrong: Kinds of trouble that were there at the last reading.
        loss: The training loss before the first alert and now.
        trials: In the order they were held.
    """
    summary = summarise(outcome, alerts, interventions, history, still_wrong, loss)
    lines = [f"# Gradients: {verdict}, {outcome}", "", *(f"- **{name}**: {told}" for name, told in summary), ""]
    if len(history):
        lines += ["## Profile over depth", "", *_profile(history), ""]
    if alerts:
        lines += ["## Alerts", "", *_limited([_alert(alert) for alert in alerts]), ""]
    if trials:
        lines += ["## Trials", "", *_limited([_trial(result) for result in trials]), ""]
    if interventions:
        lines += ["## Interventions", "", *_limited([_intervention(i) for i in interventions]), ""]
    return "\n".join(lines)


def _alert(alert: Alert) -> str:
    layers = f" Layers: {short_names(alert.layers, 6)}." if alert.layers else ""
    return (
        f"- **step {alert.step}, {alert.kind} ({alert.severity})**: {alert.message.rstrip('.')}.{layers} "
        f"Likely cause: {alert.cause.rstrip('.')}. Advice: {alert.advice.rstrip('.')}."
    )


def _trial(result: TrialResult) -> str:
    return (
        f"- **step {result.step}, {result.winner or 'nobody'} won** against {result.alert_kind}: "
        f"losses at the end {result.told}."
    )


def _intervention(intervention: Intervention) -> str:
    detail = ", ".join(f"{name} {_number(value)}" for name, value in intervention.detail.items() if name != "steps")
    return (
        f"- **step {intervention.step}, {intervention.remedy}** against {intervention.alert_kind}: {detail}; "
        f"it has acted in {intervention.detail['steps']} steps."
    )


def _profile(history: pd.DataFrame) -> Iterable[str]:
    steps = np.unique(history["step"].to_numpy())
    first, last = (history[history["step"] == step].set_index("layer") for step in (steps[0], steps[-1]))
    layers = history[["layer", "depth"]].drop_duplicates().sort_values("depth")["layer"]
    places = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MAX_LAYERS)).astype(int))
    shown = [layers.iloc[place] for place in places]
    some = f" ({len(shown)} of {len(layers)} layers)" if len(shown) < len(layers) else ""
    yield f"Root mean square of the gradient at the first and the last reading, in forward order{some}:"
    yield ""
    yield f"| layer | step {steps[0]} | step {steps[-1]} | weight norm | update ratio |"
    yield "|---|---|---|---|---|"
    for layer in shown:
        values = [
            first["rms"].get(layer),
            last["rms"].get(layer),
            _latest(history, layer, "weight_norm"),
            _latest(history, layer, "update_ratio"),
        ]
        yield f"| {layer} | " + " | ".join(_number(value) for value in values) + " |"


def _latest(history: pd.DataFrame, layer: str, column: str) -> float | None:
    known = history.loc[history["layer"] == layer, column].dropna()
    return float(known.iloc[-1]) if len(known) else None


def _limited(entries: list[str]) -> list[str]:
    rest = len(entries) - MAX_ENTRIES
    return entries if rest <= 0 else [*entries[:MAX_ENTRIES], f"- and {rest} more"]


def _number(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_number(entry) for entry in value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
