"""The report: what happened to a run, in markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.events import Alert, Intervention, Outcome, TrialResult
from grad_callbacks.reporting.alert_text import alert_parts, detail_text, heading, value_text
from grad_callbacks.reporting.loss_recovery import LossRecovery
from grad_callbacks.reporting.summary import count, summarise

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReportThresholds(Thresholds):
    """How long a report gets."""

    entries: int = threshold(
        8,
        "alerts, trials and interventions that are written out, of each; the rest is counted",
        unit="entries",
        source="not measured",
    )
    profile_rows: int = threshold(
        24, "layers in the profile over depth, evenly chosen", unit="layers", source="not measured"
    )
    names: int = threshold(6, "layers that an alert names; the rest is counted", unit="layers", source="not measured")


LIMITS = ReportThresholds()


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
        still_wrong: Kinds of alert that were still active at the last reading.
        loss: The training loss before the first alert and now.
        trials: In the order they were held.
    """
    summary = summarise(outcome, alerts, interventions, history, still_wrong, loss)
    lines = [f"# Gradients: {verdict}, {outcome}", "", *(f"- **{name}**: {text}" for name, text in summary), ""]
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
    seen, *others = alert_parts(alert, LIMITS.names)
    return "\n".join([f"- **{heading(alert)}**: {seen}", *(f"  - {text}" for text in others if text)])


def _trial(result: TrialResult) -> str:
    return (
        f"- **step {result.step}, {result.winner or 'no remedy'} won** against {result.alert_kind}: "
        f"losses at the end {result.told}."
    )


def _intervention(made: Intervention) -> str:
    steps = count(int(made.detail.get("steps", 0)), "step")
    return f"- **step {made.step}, {made.remedy}** against {made.alert_kind}: {detail_text(made)}; acted in {steps}."


def _profile(history: pd.DataFrame) -> Iterable[str]:
    steps = np.unique(history["step"].to_numpy())
    first, last = (history[history["step"] == step].set_index("layer") for step in (steps[0], steps[-1]))
    layers = history[["layer", "depth"]].drop_duplicates().sort_values("depth")["layer"]
    places = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), LIMITS.profile_rows)).astype(int))
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
        yield f"| {layer} | " + " | ".join(value_text(value) for value in values) + " |"


def _latest(history: pd.DataFrame, layer: str, column: str) -> float | None:
    known = history.loc[history["layer"] == layer, column].dropna()
    return float(known.iloc[-1]) if len(known) else None


def _limited(entries: list[str]) -> list[str]:
    rest = len(entries) - LIMITS.entries
    return entries if rest <= 0 else [*entries[: LIMITS.entries], f"- and {rest} more"]
