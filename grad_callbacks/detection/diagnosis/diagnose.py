"""Entry point: attach a likely cause to an alert."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from grad_callbacks.detection.diagnosis.case import Case
from grad_callbacks.detection.diagnosis.exploding import cause_of_explosion
from grad_callbacks.detection.diagnosis.finding import Finding
from grad_callbacks.detection.diagnosis.nonfinite import cause_of_nonfinite
from grad_callbacks.detection.diagnosis.probes import Probes
from grad_callbacks.detection.diagnosis.vanishing import cause_of_vanishing
from grad_callbacks.events import Alert

log = logging.getLogger("grad_callbacks")

_DECISIONS: Mapping[str, Callable[[Probes], Finding | None]] = {
    "vanishing": cause_of_vanishing,
    "exploding": cause_of_explosion,
    "nonfinite": cause_of_nonfinite,
}


def diagnose(alert: Alert, case: Case) -> Alert:
    """Return the alert with its likely cause, the evidence for it and the lines to change.

    Leaves model, gradients, optimizer and random numbers as they are, to the bit. The alert comes back unchanged if its
    kind is unknown, if no cause is found, or if the diagnosis fails.

    Args:
        alert: As a rule has raised it.
        case: What is known about its step.
    """
    decide = _DECISIONS.get(alert.kind)
    if decide is None:
        return alert
    try:
        finding = decide(Probes(alert, case))
    except Exception as error:  # models are of every kind: a diagnosis must not end a training
        log.debug("diagnosis of the %s alert at step %d failed: %r", alert.kind, alert.step, error)
        return alert
    return alert if finding is None else finding.added_to(alert)
