"""Following up: what came of earlier interventions, and what is done next."""

from __future__ import annotations

from collections.abc import Sequence

from grad_callbacks.events import Intervention
from grad_callbacks.measurement import Reading
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.prescription.choosing import Chooser
from grad_callbacks.treatment.prescription.planned import PlannedRemedies
from grad_callbacks.treatment.prescription.state import PrescriptionState
from grad_callbacks.treatment.prescription.treatment import LIMITS, PATIENCE, TRIAL, Treatment
from grad_callbacks.treatment.prescription.withdrawing import is_to_be_withdrawn, withdraw, withdraw_failed
from grad_callbacks.treatment.step import OptimizerStep


class FollowUp:
    """Concludes, escalates and withdraws.

    Args:
        planned: The remedies.
        state: What has been switched on so far.
        chooser: Switches on the next remedy.
    """

    def __init__(self, planned: PlannedRemedies, state: PrescriptionState, chooser: Chooser) -> None:
        self._planned, self._state, self._chooser = planned, state, chooser

    def follow(
        self, reading: Reading, active: Sequence[str], loss_level: LossLevel, step: OptimizerStep, is_near: bool
    ) -> list[Intervention]:
        """Watch what comes of earlier interventions (see :meth:`Prescription.follow`)."""
        self._state.count(reading)
        self._planned.note(step, is_well=reading.is_finite and not active and not is_near)
        withdraw_failed(step, self._planned, self._state)
        interventions = []
        for treatment in list(self._state.treatments):
            treatment.age += 1
            treatment.calm = 0 if treatment.made.alert_kind in active else treatment.calm + 1
            is_stuck = treatment.is_stuck(reading, loss_level, is_near, self._state.nonfinite)
            is_calm = treatment.calm > 0 and reading.is_finite
            more = None
            if treatment.is_open and (is_stuck or treatment.age >= _due(is_calm)):
                outcome = treatment.conclude(is_calm, loss_level)
                if is_stuck or treatment.goes_on_after(active):
                    more = self._escalate(treatment, step, treatment.place)
                    if more is not None and outcome == "worse":
                        withdraw(treatment, step, self._planned)
            elif _is_undone(treatment, reading, active, loss_level):
                treatment.watches_the_loss = False
                # What goes further back each time, and has helped for a while, gets another chance.
                goes_again = treatment.remedy.rewinds and treatment.age > LIMITS.passing
                more = self._escalate(treatment, step, treatment.place - goes_again)
            elif is_to_be_withdrawn(treatment, self._state):
                withdraw(treatment, step, self._planned)
            interventions += [] if more is None else [more]
        return interventions

    def _escalate(self, treatment: Treatment, step: OptimizerStep, after: int) -> Intervention | None:
        """Go on to the next remedy of the treatment's list."""
        return self._chooser.answer(treatment.alert, step, treatment.loss, after=after, key=treatment.key)


def _due(is_calm: bool) -> int:
    """The age at which a treatment is concluded."""
    return TRIAL if is_calm else PATIENCE


def _is_undone(treatment: Treatment, reading: Reading, active: Sequence[str], loss_level: LossLevel) -> bool:
    """True if all that was learned is lost in spite of a treatment, or the net has died."""
    is_watched = treatment.watches_the_loss and treatment.calm < LIMITS.calm
    return is_watched and (treatment.is_lost(reading, loss_level) or treatment.has_died(active))
