"""The closing lines: how a run ended, in one line if all was well and in four if not."""

from __future__ import annotations

from grad_callbacks.events import leading
from grad_callbacks.reporting.alert_text import first_advice, kind_text
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.summary import count, done_text, loss_text


def headline(record: Record) -> str:
    """Return how the run ended, in one sentence without a full stop."""
    verdict, outcome, alerts = record.verdict, record.outcome, record.alerts
    if verdict == "not measured":
        return "not measured: no step with a gradient was seen"
    watched = f"in {count(record.readings.count, 'reading')} of {count(record.readings.layers, 'layer')}"
    if not alerts:
        if outcome == "healthy":
            return f"healthy: no alert {watched}, nothing was changed"
        return f"{verdict}: no alert {watched}, but {loss_text(record.loss)}"
    when = f"at step {alerts[0].step}" if len(alerts) == 1 else f"from step {alerts[0].step} on"
    return f"{kind_text(verdict)}, {outcome}: {count(len(alerts), 'alert')} {when}, {watched}"


def closing_lines(record: Record, report: str = "") -> list[str]:
    """Return the headline and, unless all was well, what was done, what to change and where the report is.

    Args:
        record: Of the run.
        report: Where the report is; empty where it is not known.
    """
    lines = [headline(record)]
    if record.outcome == "healthy":
        return lines
    if record.alerts:
        left = [alert for alert in record.alerts if alert.kind in record.still_wrong]
        advice = first_advice(leading(left or record.alerts))
        done = done_text(record.interventions) if record.interventions else "nothing was changed"
        lines.append(f"done: {done.rstrip('.')}")
        lines += [f"what to change: {advice}"] if advice else []
    return [*lines, f"report: {report}"] if report else lines
