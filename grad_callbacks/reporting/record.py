"""The record of a run: what was found, what was done, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grad_callbacks.detection.rules  # noqa: F401  # declares the built-in kinds
from grad_callbacks.events import Alert, Intervention, Outcome, TrialResult, kind_named
from grad_callbacks.reporting.layer_history import LayerHistory
from grad_callbacks.reporting.loss_recovery import LossRecovery
from grad_callbacks.reporting.report import write_report
from grad_callbacks.reporting.summary import summarise
from grad_callbacks.treatment.remedies import REMEDIES, Remedy

if TYPE_CHECKING:
    import pandas as pd


class Record:
    """Keeps alerts, interventions, history and loss of a run, over all its optimizers.

    Attributes:
        alerts: All alerts so far, in order.
        interventions: All interventions so far, in order.
        trials: What came of trying out remedies, in order.
        losses: The training loss of each optimizer, as far as it is known.
        active: For each optimizer the kinds of alert that were still active at its last reading.
    """

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.interventions: list[Intervention] = []
        self.trials: list[TrialResult] = []
        self.losses: dict[int, LossRecovery] = {}
        self.readings = LayerHistory()
        self.active: dict[int, list[str]] = {}

    @property
    def is_empty(self) -> bool:
        """True before the first reading."""
        return self.readings.is_empty

    @property
    def loss(self) -> LossRecovery:
        """The loss of the optimizer with the first alert; where optimizers share one, that of the first."""
        whose = self.alerts[0].optimizer if self.alerts else 0
        return self.losses.get(whose) or self.losses.get(0) or LossRecovery()

    @property
    def verdict(self) -> str:
        """What was wrong with the run: the kind of its first alert, or else one of three.

        ``"not measured"``: no step was read. ``"no progress"``: after 100 steps or more the training loss is not below
        where it began; asked of runs with one optimizer and losses of one sign. ``"healthy"``: neither.
        """
        if self.alerts:
            return self.alerts[0].kind
        if self.is_empty:
            return "not measured"
        return "no progress" if self._is_where_it_began else "healthy"

    @property
    def _is_where_it_began(self) -> bool:
        """True if the loss has not come down at all; the losses of adversaries (several optimizers) need not."""
        return len(self.losses) == 1 and all(loss.is_where_it_began for loss in self.losses.values())

    @property
    def outcome(self) -> Outcome:
        """How the run ended.

        ``"partly repaired"`` if remedies were applied, no rule finds anything wrong any more, and the training loss
        does not stay above where it was before the first alert. Gradients that are still large, since they were
        measured before the clipping that bounds them, are not wrong. Of a run whose trouble was there from the start
        the loss must have come down: it was no better before. ``"repaired"`` if the loss also tells that the run has
        lost nothing (see :meth:`LossRecovery.is_back`). A run whose averages of the weights hold what a remedy has
        thrown away, and could not be reset, is ``"unrepaired"``. Without an alert that means no progress.
        """
        if not self.alerts:
            return _OUTCOMES[self.verdict]
        calm = not set(self.still_wrong) - self._bounded and self.loss.has_returned and self._has_learned
        if not (self.interventions and calm) or any("averages_lost" in made.detail for made in self.interventions):
            return "unrepaired"
        is_back = self._has_only_skipped or self.loss.is_back(self._rolled_back)
        return "repaired" if is_back else "partly repaired"

    @property
    def _has_only_skipped(self) -> bool:
        """True if all that was done is to keep single events from the weights, in few steps of all."""
        acted = sum(int(made.detail.get("steps", 0)) for made in self.interventions)
        moved = any(made.begins_anew or made.steps_back for made in self.interventions)
        return all(alert.is_single for alert in self.alerts) and not moved and self.loss.are_few(acted)

    @property
    def _rolled_back(self) -> int:
        """Steps that remedies have gone back, all together."""
        return sum(made.steps_back for made in self.interventions)

    @property
    def _bounded(self) -> set[str]:
        """Kinds of trouble that a remedy keeps from the weights, for good: clipping does so with large gradients."""
        on = [made for made in self.interventions if made.clips and "withdrawn_at" not in made.detail]
        return {made.alert_kind for made in on if kind_named(made.alert_kind).is_bounded_by_clipping}

    @property
    def _has_learned(self) -> bool:
        """False if something has hindered the learning from the start, and still does by the look of the loss."""
        began_anew = any(made.begins_anew for made in self.interventions)
        kind = kind_named(self.verdict)
        hindered = kind.stops_learning or (not kind.comes_singly and self.loss.is_marked_early)
        return self.loss.has_learned if hindered or began_anew else True

    @property
    def still_wrong(self) -> list[str]:
        """The kinds of alert that were still active at the last reading."""
        return list(dict.fromkeys(kind for kinds in self.active.values() for kind in kinds))

    def history(self) -> pd.DataFrame:
        """Return one row per step and layer.

        Returns:
            Columns ``step``, ``layer``, ``depth`` (place in the forward pass, from 0), ``norm`` and ``rms`` (of the
            gradient before any remedy; the root of a step's summed squared norms is its global norm),
            ``weight_norm`` (as last measured) and ``update_ratio`` (norm of the layer's change in this step over its
            weight norm; NaN where it was not measured) and ``profiled`` (True for a layer that owns a weight and is no
            embedding, and so counts over depth). In long runs every second step is dropped, again and again, except
            around alerts.
        """
        return self.readings.to_frame()

    def report(self) -> str:
        """Return verdict, summary, the layers' profile, alerts and interventions as markdown."""
        found = self.alerts, self.interventions, self.history(), self.still_wrong, self.loss
        return write_report(self.verdict, self.outcome, *found, trials=self.trials)

    def summary(self) -> list[tuple[str, str]]:
        """Return the report's first lines: headings and sentences (see ``summarise``)."""
        return summarise(self.outcome, self.alerts, self.interventions, self.history(), self.still_wrong, self.loss)

    def feed(self, loss: object, optimizer: int = 0) -> None:
        """Note the loss of a step (see :meth:`LossRecovery.feed`); if the step is judged at once, after that."""
        if optimizer not in self.losses:
            self.losses[optimizer] = LossRecovery()
            if self.alerts:
                self.losses[optimizer].mark()
        self.losses[optimizer].feed(loss)

    def add(self, alert: Alert, late: bool = False) -> None:
        """Note an alert; at the first one, also where the loss was.

        Args:
            alert: The alert.
            late: The loss of its step has been noted already.
        """
        if not self.alerts:
            for loss in self.losses.values():
                loss.mark(late)
        self.alerts.append(alert)
        self.readings.mark()

    def state_dict(self) -> dict[str, Any]:
        """Return plain data and tensors, which a checkpoint loads with ``weights_only=True``.

        Ask the engines for their states first: they may still have a step to judge.
        """
        return {
            "alerts": [alert.to_dict() for alert in self.alerts],
            "interventions": [intervention.to_dict() for intervention in self.interventions],
            "trials": [result.to_dict() for result in self.trials],
            "history": self.readings.state_dict(),
            "losses": {index: loss.state_dict() for index, loss in self.losses.items()},
            "active": {index: list(kinds) for index, kinds in self.active.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.alerts = [Alert.from_dict(alert) for alert in state["alerts"]]
        self.interventions = [Intervention.from_dict(_with_traits(entry)) for entry in state["interventions"]]
        self.trials[:] = [TrialResult.from_dict(result) for result in state.get("trials", [])]  # engines hold this list
        self.readings.load_state_dict(state["history"])
        self.losses = {index: LossRecovery() for index in state["losses"]}
        for index, loss in self.losses.items():
            loss.load_state_dict(state["losses"][index])
        self.active = {index: list(kinds) for index, kinds in state["active"].items()}


_OUTCOMES: dict[str, Outcome] = {"healthy": "healthy", "no progress": "unrepaired", "not measured": "not measured"}


def _with_traits(intervention: Mapping[str, Any]) -> dict[str, Any]:
    """Add the remedy's traits to an intervention that was saved before these were kept."""
    cls = REMEDIES.get(intervention["remedy"], Remedy)
    return {"clips": cls.clips, "begins_anew": cls.begins_anew, **intervention}
