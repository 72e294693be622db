"""The summary: what a run's gradients did, in at most five lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.events import KINDS, Alert, Intervention, Outcome, leading
from grad_callbacks.reporting.alert_text import kind_text
from grad_callbacks.reporting.loss_recovery import LossRecovery

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SummaryThresholds(Thresholds):
    """How long the lines of a summary get."""

    names: int = threshold(4, "layers that are named in a line", unit="layers", source="not measured")


LIMITS = SummaryThresholds()


_UNMEASURED = (
    "Not measured: no step with a gradient was seen. If there were some, this object was not asked: some libraries "
    "train with a copy of a callback (look in `trainer.callbacks`), and in manual optimization only steps of "
    "`self.optimizers()` are seen."
)


def summarise(
    outcome: Outcome,
    alerts: Sequence[Alert],
    interventions: Sequence[Intervention],
    history: pd.DataFrame,
    still_wrong: Sequence[str],
    loss: LossRecovery,
) -> list[tuple[str, str]]:
    """Return at most five headings and sentences: what was wrong, why, what was done, did it help, what to do.

    Args:
        outcome: How the run ended.
        alerts: In the order they were raised.
        interventions: In the order they were made.
        history: One row per step and layer.
        still_wrong: Kinds of alert that were still active at the last reading.
        loss: The training loss before the first alert and now.
    """
    if history.empty:
        return [("Wrong", _UNMEASURED)]
    seen = count(int(history["step"].max() - history["step"].min()) + 1, "step")
    watched = f"{seen} and {count(history['layer'].nunique(), 'layer')} watched"
    if not alerts:
        wrong = "Nothing. No alert was raised."
        if outcome != "healthy":
            wrong = f"{_capital(loss_text(loss))}. No alert was raised."
        return [("Wrong", wrong), ("Done", "Nothing was changed."), ("Seen", _calm(history))]
    main, number = leading(alerts), "One alert" if len(alerts) == 1 else f"{len(alerts)} alerts"
    when = f"at step {main.step}" if len(alerts) == 1 else f"from step {alerts[0].step} on"
    what = f"{_capital(kind_text(main.kind))} {when}{_where(main.layers, history)}"
    later = [next(a for a in alerts if a.kind == kind) for kind in dict.fromkeys(a.kind for a in alerts)][1:]
    also = "".join(f" Then {alert.kind} from step {alert.step} on." for alert in later)
    left = [alert for alert in alerts if alert.kind in still_wrong]
    return [
        ("Wrong", f"{what}.{also} {number}, {watched}."),
        ("Why", f"{_sentence(main.cause)} Seen: {_sentence(main.message, capital=False)}"),
        ("Done", done_text(interventions)),
        ("Helped", _helped(outcome, interventions, still_wrong, loss)),
        ("Next time" if outcome == "repaired" else "Do now", _sentence(leading(left or alerts).advice)),
    ]


def short_names(names: Sequence[str], most: int = LIMITS.names) -> str:
    """Name the first of some layers, and count the others."""
    return (
        ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    )


def loss_text(loss: LossRecovery) -> str:
    """Return that the loss has not come down, with its numbers."""
    return f"the training loss has not come down: {loss.began:.3g} at the start, {loss.now:.3g} at the end"


def _calm(history: pd.DataFrame) -> str:
    totals = np.sqrt((history["norm"] ** 2).groupby(history["step"]).sum())
    first, last = totals.index[0], totals.index[-1]
    return (
        f"{count(int(last - first) + 1, 'step')}, {count(history['layer'].nunique(), 'layer')}; "
        f"global gradient norm {totals.iloc[0]:.3g} at step {first}, {totals.iloc[-1]:.3g} at step {last}."
    )


def _where(layers: Sequence[str], history: pd.DataFrame) -> str:
    if not layers:
        return ""
    if len(layers) == 1:
        return f" in {layers[0]}"
    return f" in {len(layers)} of {history['layer'].nunique()} layers ({short_names(layers)})"


def done_text(interventions: Sequence[Intervention]) -> str:
    """Return each remedy with its numbers, its first step and how often it acted."""
    if not interventions:
        return "Nothing was changed."
    first: dict[str, Intervention] = {}
    for intervention in interventions:
        first.setdefault(intervention.remedy, intervention)
    parts = []
    for remedy, intervention in first.items():
        same = [i for i in interventions if i.remedy == remedy]
        acted = sum(int(i.detail.get("steps", 0)) for i in same)
        again = f", {len(same)} times" if len(same) > 1 else ""
        parts.append(f"{remedy}{_how(same[-1])} from step {intervention.step}{again}, acted in {count(acted, 'step')}")
    return f"{'; '.join(parts)}."


def _how(intervention: Intervention) -> str:
    detail = intervention.detail
    for name in ("max_norm", "max_value", "lr_scale"):
        if isinstance(detail.get(name), float):
            later = f", later up to {detail[f'{name}_later']:.3g}" if f"{name}_later" in detail else ""
            return f" ({name} {detail[name]:.3g}{later})"
    return ""


def _helped(
    outcome: Outcome, interventions: Sequence[Intervention], still_wrong: Sequence[str], loss: LossRecovery
) -> str:
    if outcome in ("repaired", "partly repaired") and still_wrong:
        verdict = "Yes. Gradients are still large, and clipping keeps that from the weights"
    elif outcome == "repaired":
        verdict = "Yes. Gradients are calm at the end"
    elif outcome == "partly repaired":
        verdict = (
            "In part. Gradients are calm at the end, but the loss does not tell whether the run has lost something"
        )
    elif still_wrong:
        verdict = f"{'No. ' if interventions else ''}{_still(still_wrong)} at the end"
    elif interventions:
        verdict = "Not enough. Gradients are calm at the end, but the loss has not come back"
    else:
        verdict = "Gradients are calm at the end"
    if math.isfinite(loss.before):
        return f"{verdict}. Training loss {loss.before:.3g} before the first alert, {loss.now:.3g} at the end."
    return f"{verdict}."


def _still(kinds: Sequence[str]) -> str:
    if set(kinds) <= set(KINDS):
        return f"Gradients are still {' and '.join(kinds)}"
    return f"Still active: {', '.join(map(kind_text, kinds))}"


def _sentence(text: str, capital: bool = True) -> str:
    text = text.strip().rstrip(".")
    return f"{_capital(text) if capital else text}." if text else "Unknown."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def count(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 step``, ``2 steps``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
