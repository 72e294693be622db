"""Choosing: which remedy answers an alert."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import Any

from grad_callbacks.events import Alert, Intervention, kind_named
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.prescription.planned import PlannedRemedies
from grad_callbacks.treatment.prescription.state import PrescriptionState
from grad_callbacks.treatment.prescription.treatment import RATE_TOO_HIGH, Treatment
from grad_callbacks.treatment.prescription.withdrawing import stop_clipping
from grad_callbacks.treatment.remedies import Remedy
from grad_callbacks.treatment.remedies.rollback import was_raised
from grad_callbacks.treatment.step import OptimizerStep

LAST = sys.maxsize  # place in a list


class Chooser:
    """Switches on the first remedy of an alert's list that still has something to give.

    Args:
        planned: The remedies.
        state: What has been switched on so far.
    """

    def __init__(self, planned: PlannedRemedies, state: PrescriptionState) -> None:
        self._planned, self._state = planned, state

    def list_for(self, alert: Alert, step: OptimizerStep) -> str:
        """Which list answers an alert: one spike is no proof of its cause, but a step that was tried is."""
        cause = alert.cause
        if alert.severity == "warning":
            is_tried = cause == RATE_TOO_HIGH and alert.evidence.step_overshoots
            is_of_rate = kind_named(alert.kind).is_bounded_by_clipping and (is_tried or was_raised(step))
            cause = RATE_TOO_HIGH if is_of_rate else ""
        key = f"{alert.kind}: {cause}"
        return key if key in self._planned.lists else alert.kind

    def answer(
        self,
        alert: Alert,
        step: OptimizerStep,
        loss: float = math.nan,
        after: int = -1,
        until: int = LAST,
        key: str = "",
    ) -> Intervention | None:
        """Switch on a remedy for ``alert`` (see :meth:`Prescription.answer`)."""
        if step.run_state is not None:
            step.run_state.alert = alert
        key = key or self.list_for(alert, step)
        remedies = self._planned.lists.get(key, [])
        for place in self._usable(alert, step, key, after):
            if after < place <= until:
                detail = self._planned.engage(remedies[place], step, alert.evidence)
                if detail is not None:
                    return self._enter(alert, step, loss, key, place, detail)
        return None

    def answer_with(
        self, trait: Callable[[Remedy], bool], alert: Alert, step: OptimizerStep, loss: float = math.nan
    ) -> Intervention | None:
        """Switch on the first remedy that has a trait; None if none of them has anything to give."""
        for place, remedy in enumerate(self._planned.lists.get(self.list_for(alert, step), [])):
            made = self.answer(alert, step, loss, after=place - 1, until=place) if trait(remedy) else None
            if made is not None:
                return made
        return None

    def begin(self, alert: Alert, step: OptimizerStep) -> Intervention | None:
        """Answer what the first reading has shown, if that can be done before the first step; None if it cannot."""
        if alert.evidence.displacement is not None:
            return self.answer(alert, step)
        return self.answer_with(attrgetter("acts_at_start"), alert, step)

    def support(self, interventions: Iterable[Intervention], step: OptimizerStep) -> list[Intervention]:
        """Switch on what supplements remedies that were switched on in this step."""
        supplements = []
        for treatment in [t for t in self._state.treatments if any(t.made is made for made in interventions)]:
            for place, remedy in enumerate(self._planned.lists[treatment.key]):
                if not remedy.supplements or self._planned.is_left_out(remedy) or self._is_spent(remedy):
                    continue
                detail = self._planned.engage(remedy, step, treatment.alert.evidence)
                if detail is not None:
                    made = _intervention(remedy, treatment.alert, detail)
                    self._state.answers[self._planned.key_of(remedy)] = made.alert_kind
                    self._state.treatments.append(replace(treatment, made=made, remedy=remedy, place=place))
                    supplements.append(made)
        return supplements

    def _usable(self, alert: Alert, step: OptimizerStep, key: str, after: int) -> list[int]:
        """The places in a list whose remedies may be asked."""
        remedies = self._planned.lists.get(key, [])
        usable = [
            place
            for place, remedy in enumerate(remedies)
            if not self._planned.is_left_out(remedy) and not remedy.supplements and not self._is_spent(remedy)
        ]
        proving = [place for place in usable if remedies[place].proves_itself]
        if after < 0 and step.run_state is not None and self._is_absorbed(alert, step.run_state.loss_level):
            return proving
        is_passing = alert.severity == "warning" and after < 0 and key == alert.kind
        return usable[: len(proving) + 1] if is_passing else usable

    def _enter(
        self, alert: Alert, step: OptimizerStep, loss: float, key: str, place: int, detail: dict[str, Any]
    ) -> Intervention:
        """Note that a remedy was switched on, and what that means for earlier ones."""
        remedy = self._planned.lists[key][place]
        made = _intervention(remedy, alert, detail)
        self._state.answers[self._planned.key_of(remedy)] = alert.kind
        self._state.supersede(alert.kind)
        if remedy.rewinds:
            stop_clipping(alert.kind, step, self._planned, self._state)
        self._state.treatments.append(Treatment(made, alert, remedy, key, place, loss=loss))
        return made

    def _is_spent(self, remedy: Remedy) -> bool:
        """True for new weights that the run has been given already, by another place in the plan."""
        return remedy.reinitializes and any(treatment.remedy.reinitializes for treatment in self._state.treatments)

    def _is_absorbed(self, alert: Alert, loss_level: LossLevel | None) -> bool:
        """True if the steps are bounded and the loss bears what gradients come: nothing more is needed."""
        if not kind_named(alert.kind).is_bounded_by_clipping or loss_level is None or not loss_level.count:
            return False
        on = [t for t in self._state.treatments if t.absorbs(alert)]
        return bool(on) and not (on[-1].suffers(loss_level) or on[-1].is_in_vain(alert, loss_level))


def _intervention(remedy: Remedy, alert: Alert, detail: dict[str, Any]) -> Intervention:
    name = type(remedy).__name__
    traits = {"clips": remedy.clips, "begins_anew": remedy.begins_anew, "rewinds": remedy.rewinds}
    return Intervention(alert.step, name, alert.kind, detail, alert.optimizer, **traits)
