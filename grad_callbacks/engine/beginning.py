"""The run's first reading: judged by itself, and what it shows repaired before the first step."""

from __future__ import annotations

from grad_callbacks.detection.rules.first_step import NOT_OF_THE_START
from grad_callbacks.engine.no_treatment import NoTreatment
from grad_callbacks.engine.remedy_runner import RemedyRunner
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.treatment.step.pending_step import PendingStep


def begin(
    step: PendingStep, rules: RuleRunner, treatment: RemedyRunner | NoTreatment
) -> tuple[Alert | None, Intervention | None]:
    """Return what the first reading has raised, and what was done about it; nothing at later readings.

    Args:
        step: A step that no rule has raised an alert for.
        rules: Have judged it.
        treatment: May act before the first step.
    """
    alert = rules.look_at_the_start(step, treatment.looks_at_the_start)
    made = None if alert is None else treatment.begin(alert, step)
    if alert is None:
        return None, None
    is_of_the_data = alert.cause in NOT_OF_THE_START and alert.evidence.displacement is None
    if made is None and is_of_the_data:
        return None, None
    if made is None:
        rules.told_at_start = alert.kind  # the rules will say it again
    return alert, made
