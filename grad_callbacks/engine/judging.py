"""From a reading to what is done about it."""

from __future__ import annotations

from grad_callbacks.engine.beginning import begin
from grad_callbacks.engine.no_treatment import NoTreatment
from grad_callbacks.engine.remedy_runner import RemedyRunner
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import Gauge
from grad_callbacks.reporting.record import Record
from grad_callbacks.treatment.step.pending_step import PendingStep


def judged(
    step: PendingStep,
    rules: RuleRunner,
    treatment: RemedyRunner | NoTreatment,
    gauge: Gauge,
    record: Record,
    index: int,
) -> tuple[list[Alert], list[Intervention]]:
    """Judge a step and answer its alerts; return both, as they were entered into the record.

    Args:
        step: Has been measured.
        rules: Judge it.
        treatment: Answers the alerts.
        gauge: Is told what to measure in the next step.
        record: Of the run.
        index: The optimizer's index among several.
    """
    before, alerts = rules.loss_level.level, rules.judge(step)
    first, begun = (None, None) if alerts else begin(step, rules, treatment)
    news = [alert for alert in alerts if not rules.was_told(alert)] if first is None else [first]
    for alert in news:
        record.add(alert, late=step.on_device)
    gauge.look_closely(is_near := rules.is_near)
    rules.note(step)
    interventions = treatment.answer(alerts, step, before) if begun is None else [begun]
    interventions += treatment.support(interventions, step)
    record.interventions.extend(interventions)
    treatment.enter(interventions, step)
    record.active[index] = rules.active
    treatment.keep_a_snapshot(step, step.reading.is_finite and not alerts and not rules.active, is_near)
    return news, interventions
