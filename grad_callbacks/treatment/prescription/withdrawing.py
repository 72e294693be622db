"""Withdrawing: when a remedy is switched off again."""

from __future__ import annotations

from grad_callbacks.treatment.prescription.planned import PlannedRemedies
from grad_callbacks.treatment.prescription.state import PrescriptionState
from grad_callbacks.treatment.prescription.treatment import LIMITS, PASSING, Treatment
from grad_callbacks.treatment.step import OptimizerStep


def withdraw(treatment: Treatment, step: OptimizerStep, planned: PlannedRemedies) -> None:
    """Switch the remedy of a treatment off."""
    treatment.is_on = False
    if planned.release(treatment.remedy, step):
        treatment.made.detail["withdrawn_at"] = step.reading.step


def is_to_be_withdrawn(treatment: Treatment, state: PrescriptionState) -> bool:
    """True once the run has been calm for long after an event that passes, for the first time."""
    if not treatment.is_on or treatment.calm < LIMITS.calm or treatment.alert.cause not in PASSING:
        return False  # a rate that was too high once is so again
    # What came back after a withdrawal stays.
    return not any(t.made.remedy == treatment.made.remedy and not t.is_on for t in state.treatments)


def stop_clipping(kind: str, step: OptimizerStep, planned: PlannedRemedies, state: PrescriptionState) -> None:
    """Withdraw a bound that was taken from an event that has been undone: the rate is lowered in its place.

    Such a treatment is forgotten: a clip that is switched on later is not one that came back after a calm.
    """
    for treatment in list(state.treatments):
        is_of_kind = treatment.is_on and treatment.made.alert_kind == kind
        if is_of_kind and treatment.remedy.takes_bound_from_alert:
            withdraw(treatment, step, planned)
            state.treatments.remove(treatment)


def withdraw_failed(step: OptimizerStep, planned: PlannedRemedies, state: PrescriptionState) -> None:
    """Note which remedies have raised an error and are off since."""
    for treatment in state.treatments:
        if treatment.is_on and planned.barrier.leaves_out(treatment.remedy):
            treatment.is_on = False
            treatment.made.detail["withdrawn_at"] = step.reading.step
