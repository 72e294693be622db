"""Caring for one optimizer: from alerts to interventions, with what remedies need at hand."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from grad_callbacks._utils.optimizers import can_skip_on_device
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import Gauge
from grad_callbacks.measurement.loss_level import LOSS_LEVEL
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import Plan
from grad_callbacks.treatment.remedies import (
    CLIPS,
    AdaptiveStep,
    FloorNorm,
    Reinitialize,
    RescaleInputs,
    Rollback,
    SkipStep,
    Warmup,
)
from grad_callbacks.treatment.step import RunState, Snapshots
from grad_callbacks.treatment.step.buffer_guard import BufferGuard
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.trial.contest import Contest

EARLY = 200  # readings after which a run that has learned something will not begin again

NO_TREATMENT: dict[str, Any] = {
    "prescription": None,
    "snapshots": None,
    "skips_next": False,
}  # where nothing is treated

_TREATED: WeakSet[torch.optim.Optimizer] = WeakSet()  # by an engine with a prescription


class RemedyRunner:
    """Answers the alerts of one optimizer as prescribed, and lets the remedies act on its steps.

    Args:
        model: Is trained.
        optimizer: Takes the steps.
        prescription: Answers the alerts.
        gauge: Takes the readings.
        judges: Raise the alerts.
        contest: Answers the alerts in place of the prescription; None holds no trials.

    Attributes:
        latest: The latest intervention for each kind of alert and remedy.
        snapshots: Earlier states to go back to; None where no remedy asks for them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        prescription: Prescription,
        gauge: Gauge,
        judges: RuleRunner,
        contest: Contest | None = None,
    ) -> None:
        self.latest: dict[tuple[str, str], Intervention] = {}
        self.snapshots = Snapshots(model, optimizer) if prescription.needs_snapshots else None
        self._model, self._optimizer = model, optimizer
        self._prescription = prescription
        self._judges, self._gauge = judges, gauge
        self._contest = contest
        self._buffers: BufferGuard | None = None
        _TREATED.add(optimizer)
        if isinstance(optimizer, torch.optim.LBFGS):
            prescription.leave_out(*CLIPS, FloorNorm, AdaptiveStep, why="clipping would spoil the line search of LBFGS")
            prescription.leave_out(
                Reinitialize, RescaleInputs, Rollback, Warmup, why="LBFGS remembers where its weights were"
            )
        if prescription.skips_nonfinite and any(b.is_floating_point() for b in model.buffers()):
            self._buffers = BufferGuard(model)
            self._buffers.settle(False)

    @property
    def nbytes(self) -> int:
        """Bytes that snapshots, and batches kept for trials, take at the moment."""
        kept = self.snapshots.nbytes if self.snapshots is not None else 0
        return kept + (self._contest.ring.nbytes if self._contest is not None else 0)

    def must_wait(self, context: StepContext) -> bool:
        """True if a remedy needs the judgement before the step is taken."""
        skips_by_itself = context.under_scaler or can_skip_on_device(self._optimizer)
        return self._prescription.skips_judged or (self._prescription.skips_nonfinite and not skips_by_itself)

    def look_around(self, context: StepContext) -> None:
        """See what stands around the step to come."""
        if self.snapshots is not None:
            self.snapshots.scaler = context.scaler

    def open(self, number: int) -> None:
        """Before the first step: keep what it begins with."""
        if self.snapshots is not None:
            self.snapshots.begin(number)

    def begin(self, step: PendingStep) -> tuple[Alert, Intervention] | None:
        """Repair what the run's first reading shows of the initialisation; None if there is nothing to repair."""
        if not (self._judges.from_start and self._prescription.looks_at_the_start):
            return None
        alert = self._judges.look_at_the_start(step)
        if alert is None:
            return None
        self._build_run_state(step)
        made = self._prescription.begin(alert, step.handle)
        return None if made is None else (alert, made)

    def answer(self, alerts: Iterable[Alert], step: PendingStep, loss: float) -> list[Intervention]:
        """Follow what was switched on earlier, and answer what is new.

        Args:
            alerts: What is new.
            step: Raised them.
            loss: Level of the loss before it.
        """
        run_state, judges = self._build_run_state(step), self._judges
        made = self._prescription.follow(step.reading, judges.active, judges.course, step.handle, judges.is_near)
        for alert in alerts:
            if run_state.restarted_from is None and (more := self._answer(alert, step, loss)) is not None:
                made.append(more)
        if self._contest is not None:
            self._contest.note(step)
        return made

    def _answer(self, alert: Alert, step: PendingStep, loss: float) -> Intervention | None:
        if self._contest is not None:
            return self._contest.answer(alert, step, loss)
        return self._prescription.answer(alert, step.handle, loss)

    def support(self, interventions: Sequence[Intervention], step: PendingStep) -> list[Intervention]:
        """Switch on what is to stand beside what was switched on in this step; a trial has tried none of it."""
        return [] if self._contest is not None else self._prescription.support(interventions, step.handle)

    def enter(self, interventions: Iterable[Intervention], step: PendingStep) -> None:
        """Count on what was switched on, and begin anew if a remedy has changed the weights."""
        self.latest |= {(made.alert_kind, made.remedy): made for made in interventions}
        if step.handle.run_state is not None and step.handle.run_state.restarted_from is not None:
            self._begin_anew(step.handle.run_state.restarted_from, step.reading.step)

    def keep_a_snapshot(self, step: PendingStep, is_well: bool, is_near: bool) -> None:
        """Take a snapshot if all is well and it is time; an old enough run keeps none from before its first step."""
        if self.snapshots is None:
            return
        self.snapshots.note(step.reading.step, is_well and not is_near, not is_well, self._judges.beside())
        if self._judges.count > EARLY and self._judges.course.gained > LOSS_LEVEL.learned:
            self.snapshots.forget_first()

    def act(self, step: PendingStep) -> None:
        """Let the remedies act on the step, and send home what came of it."""
        if step.on_device and self._prescription.skips_nonfinite:
            # Before any alert: by the time of the judgement the weights would be lost.
            step.acted["nonfinite", SkipStep.__name__] = step.handle.skip_if_nonfinite()
        if self._contest is not None:
            self._contest.skip(step)
        step.acted |= self._prescription.act(step.handle)
        step.handle.commit()
        if step.handle.is_skipped:
            self._gauge.update_ratios.void_step()
        if self._buffers is not None:
            bad = step.acted.get(("nonfinite", SkipStep.__name__), False)
            self._buffers.settle(bad if step.on_device else step.handle.is_skipped and not step.reading.is_finite)
        step.send_results()

    def close(self) -> None:
        """Let another engine treat the optimizer, and take the remedies' hooks away."""
        self._prescription.detach()
        _TREATED.discard(self._optimizer)

    def state_dict(self, made: Sequence[Intervention]) -> dict[str, Any]:
        """Return prescription, snapshots and what a trial has left to do, as plain data and tensors.

        Args:
            made: The record's interventions for this optimizer.
        """
        snapshots = self.snapshots.state_dict() if self.snapshots is not None else None
        skips_next = self._contest is not None and self._contest.skips_next
        return {"prescription": self._prescription.state_dict(made), "snapshots": snapshots, "skips_next": skips_next}

    def load_state_dict(self, state: Mapping[str, Any], made: Sequence[Intervention]) -> None:
        """Continue from :meth:`state_dict`; nothing of a run that was only watched.

        Raises:
            ValueError: If the state was saved under another plan.
        """
        self.latest = {(entry.alert_kind, entry.remedy): entry for entry in made}
        if state["prescription"]:
            self._prescription.load_state_dict(state["prescription"], made)
            self._prescription.attach(self._model)
        if self.snapshots is not None and state["snapshots"]:
            self.snapshots.load_state_dict(state["snapshots"])
        if self._contest is not None:
            self._contest.skips_next = state["skips_next"]

    def _build_run_state(self, step: PendingStep) -> RunState:
        judges = self._judges
        step.handle.run_state = RunState(
            self._model,
            step.batch,
            self.snapshots,
            readings=judges.count,
            from_start=judges.from_start,
            has_learned=judges.course.gained > LOSS_LEVEL.learned,
            course=judges.course,
        )
        return step.handle.run_state

    def _begin_anew(self, whence: str | Mapping[str, Any], number: int) -> None:
        """Let the rules judge from where the weights are now: what they have seen since is of others."""
        is_fresh, snapshots = isinstance(whence, str), self.snapshots
        # Before the second reading nothing is put back, and the first batch may have spoilt the buffers.
        are_restored = not is_fresh or (self._judges.count > 1 and snapshots is not None and bool(snapshots.first))
        beside = None if isinstance(whence, str) else whence["beside"]
        self._judges.begin_anew(beside, is_fresh)
        self._gauge.update_ratios.reset()
        if beside is None:
            self._gauge.update_ratios.readings = 0
        if self._buffers is not None and are_restored:
            self._buffers.settle(False)  # those of the snapshot
        if is_fresh and snapshots is not None:
            snapshots.begin(number)


def prescription_for(
    optimizer: torch.optim.Optimizer, prescription: Prescription | Plan | str | None
) -> Prescription | None:
    """Return the optimizer's own copy of a prescription, or of a plan for one; None for none.

    Raises:
        ValueError: If it is none of these, or another engine treats the optimizer already.
    """
    plan = Prescription(prescription) if isinstance(prescription, Mapping | str) else prescription
    if plan is not None and not isinstance(plan, Prescription):
        raise ValueError(f"prescription must be a Prescription, a plan for one, or None, got {prescription!r}")
    if plan is not None and optimizer in _TREATED:
        raise ValueError(
            "another engine with a prescription treats this optimizer already, and they would lower its learning "
            "rate twice: keep one of them, or use a GradientMonitor for the other"
        )
    return copy.deepcopy(plan)
