"""Treating one optimizer: from alerts to interventions, with what remedies need at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from grad_callbacks._utils.optimizers import can_skip_on_device
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import Gauge, QuietBlock
from grad_callbacks.measurement.loss_level import LOSS_LEVEL
from grad_callbacks.treatment.prescription.prescription import NONFINITE, Prescription
from grad_callbacks.treatment.step import RunState, Snapshots
from grad_callbacks.treatment.step.buffer_guard import BufferGuard
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.step.step_gate import StepGate
from grad_callbacks.treatment.trial.contest import Contest


@dataclass(frozen=True)
class RemedyRunnerThresholds(Thresholds):
    """The numbers that decide what is kept for remedies."""

    readings_with_first_snapshot: int = threshold(
        200,
        "readings after which a run that has learned something will not start over",
        unit="readings",
        source="not measured",
    )


LIMITS = RemedyRunnerThresholds()
TREATED: WeakSet[torch.optim.Optimizer] = WeakSet()  # by an engine with a prescription


class RemedyRunner:
    """Answers the alerts of one optimizer as prescribed, and lets the remedies act on its steps.

    Args:
        model: Is trained.
        optimizer: Takes the steps.
        prescription: Answers the alerts.
        gauge: Takes the readings.
        learning_rate: The learning rate of the optimizer.
        rule_runner: Raises the alerts.
        contest: Answers the alerts in place of the prescription; None holds no trials.
        memory: What snapshots may take in memory (see :class:`~grad_callbacks.Engine`).
        averages: Objects beside the model that may hold averages of its weights.

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
        learning_rate: LearningRate,
        rule_runner: RuleRunner,
        contest: Contest | None = None,
        memory: float | None = None,
        averages: Sequence[object] = (),
    ) -> None:
        self.latest: dict[tuple[str, str], Intervention] = {}
        self.snapshots: Snapshots | None = None
        if prescription.needs_snapshots:
            self.snapshots = Snapshots(model, optimizer, memory=memory, holders=averages, trained=_trained)
        self._model, self._optimizer = model, optimizer
        self._prescription = prescription
        self._rule_runner, self._gauge = rule_runner, gauge
        self._learning_rate = learning_rate
        self._contest = contest
        self._skipping = NONFINITE, prescription.skipping_remedy
        self._buffers: BufferGuard | None = None
        self._gate = StepGate(optimizer)
        TREATED.add(optimizer)
        if isinstance(optimizer, torch.optim.LBFGS):
            prescription.leave_out("changes_gradients", why="clipping would spoil the line search of LBFGS")
            prescription.leave_out("changes_weights", why="LBFGS remembers where its weights were")
        if prescription.skips_nonfinite and any(b.is_floating_point() for b in model.buffers()):
            self._buffers = BufferGuard(model)
            self._buffers.settle(False)

    @property
    def nbytes(self) -> int:
        """Bytes that snapshots, and batches kept for trials, take at the moment."""
        kept = self.snapshots.nbytes if self.snapshots is not None else 0
        return kept + (self._contest.batches.nbytes if self._contest is not None else 0)

    def must_wait(self, context: StepContext) -> bool:
        """True if a remedy needs the judgement before the step is taken."""
        skips_by_itself = context.under_scaler or can_skip_on_device(self._optimizer)
        return self._prescription.skips_judged or (self._prescription.skips_nonfinite and not skips_by_itself)

    def before_backward(self, loss: Tensor) -> None:
        """Let the remedies that work in the backward pass prepare for that of ``loss``."""
        self._prescription.before_backward(loss)

    def read_context(self, context: StepContext) -> None:
        """Read the step's context (loss scaler); keep the state that was loaded before it, if one was."""
        self._gate.open()
        if self.snapshots is not None:
            self.snapshots.scaler = context.scaler
            self.snapshots.take_resumed(self._rule_runner.kept_with_snapshot)

    def open(self, number: int) -> None:
        """Before the first step: keep what it begins with."""
        if self.snapshots is not None:
            self.snapshots.begin(number)

    @property
    def looks_at_the_start(self) -> bool:
        """True if there is something to be done before the first step."""
        return self._prescription.looks_at_the_start

    def begin(self, alert: Alert, step: PendingStep) -> Intervention | None:
        """Repair what the run's first reading shows of the initialisation; None if that cannot be done."""
        if not self.looks_at_the_start:
            return None
        self._build_run_state(step)
        return self._prescription.begin(alert, step.handle)

    def answer(self, alerts: Iterable[Alert], step: PendingStep, loss: float) -> list[Intervention]:
        """Follow what was switched on earlier, and answer what is new.

        Args:
            alerts: What is new.
            step: Raised them.
            loss: Level of the loss before it.
        """
        run_state, rules = self._build_run_state(step), self._rule_runner
        made = self._prescription.follow(step.reading, rules.active, rules.loss_level, step.handle, rules.is_near)
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
        """Switch on what supplements what was switched on in this step; a trial has tried none of it."""
        return [] if self._contest is not None else self._prescription.support(interventions, step.handle)

    def enter(self, interventions: Sequence[Intervention], step: PendingStep) -> None:
        """Note what was switched on, and restart the rules if a remedy has changed the weights."""
        self.latest |= {(made.alert_kind, made.remedy): made for made in interventions}
        if step.handle.run_state is not None and step.handle.run_state.restarted_from is not None:
            self._restart(step.handle.run_state.restarted_from, step.reading.step)
        if self.snapshots is not None and self.snapshots.averages is not None:
            if interventions:
                interventions[-1].detail.update(self.snapshots.averages.detail)
            self.snapshots.averages = None

    def keep_a_snapshot(self, step: PendingStep, is_well: bool, is_near: bool) -> None:
        """Take a snapshot if all is well and it is time; an old enough run keeps none from before its first step."""
        if self.snapshots is None:
            return
        keep = self._rule_runner.kept_with_snapshot
        self.snapshots.note(step.reading.step, is_well and not is_near, not is_well, keep)
        self._forget_the_first()

    def idle_for(self, readings: int) -> int:
        """Return for how many readings of a run in which all is well nothing needs to see the step.

        Once anything was switched on, what comes of it is followed step by step.

        Args:
            readings: Readings so far.
        """
        if self._contest is not None or self.latest or self._learning_rate.scale != 1.0:
            return 0
        remedies = self._prescription.idle_for(readings)
        return remedies if self.snapshots is None else min(remedies, self.snapshots.until_due)

    def let_pass(self) -> None:
        """Let a step pass that nothing needs to see."""
        self._gate.open()
        if self._buffers is not None:
            self._buffers.keep()

    def take_in(self, block: QuietBlock) -> None:
        """Take in the readings of steps that have passed."""
        self._prescription.take_in(block)
        if self.snapshots is not None:
            self.snapshots.scaler = None
            keep = self._rule_runner.kept_with_snapshot
            self.snapshots.note(block.latest.step, not self._rule_runner.is_near, False, keep, len(block))
            self._forget_the_first()

    def _forget_the_first(self) -> None:
        """Remove the snapshot from before the first step once the run is old enough and has learned something."""
        rules = self._rule_runner
        is_old = rules.count > LIMITS.readings_with_first_snapshot
        if self.snapshots is not None and is_old and rules.loss_level.gained > LOSS_LEVEL.learned:
            self.snapshots.forget_first()

    def act(self, step: PendingStep) -> None:
        """Let the remedies act on the step, and start the device-to-host copy of their results."""
        if step.on_device and self._prescription.skips_nonfinite:
            # Before any alert: by the time of the judgement the weights would be lost.
            step.acted[self._skipping] = step.handle.skip_if_nonfinite()
        if self._contest is not None:
            self._contest.skip(step)
        step.acted |= self._prescription.act(step.handle)
        step.handle.commit()
        if step.handle.is_skipped:
            self._gate.shut()
            self._gauge.update_ratios.void_step()
        if self._buffers is not None:
            bad = step.acted.get(self._skipping, False)
            self._buffers.settle(bad if step.on_device else step.handle.is_skipped and not step.reading.is_finite)
        step.send_results()

    def close(self) -> None:
        """Take the remedies' hooks away, and let another engine treat the optimizer."""
        self._prescription.detach()
        self._gate.remove()
        if self.snapshots is not None:
            self.snapshots.close()
        TREATED.discard(self._optimizer)

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
        self._learning_rate.scale = state["lr_scale"]
        if state["prescription"]:
            self._prescription.load_state_dict(state["prescription"], made)
            self._prescription.attach(self._model)
        if self.snapshots is not None and state["snapshots"]:
            self.snapshots.load_state_dict(state["snapshots"])
        if self._contest is not None:
            self._contest.skips_next = state["skips_next"]

    def _build_run_state(self, step: PendingStep) -> RunState:
        rules = self._rule_runner
        step.handle.run_state = RunState(
            self._model,
            step.batch,
            self.snapshots,
            readings=rules.count,
            from_start=rules.from_start,
            has_learned=rules.loss_level.gained > LOSS_LEVEL.learned,
            loss_level=rules.loss_level,
        )
        return step.handle.run_state

    def _restart(self, origin: str | Mapping[str, Any], number: int) -> None:
        """Reset the rules to the weights of now: ``"start"``, or the snapshot that they come from."""
        is_fresh, snapshots = isinstance(origin, str), self.snapshots
        # Before the second reading nothing is put back, and the first batch may have spoilt the buffers.
        are_restored = not is_fresh or (self._rule_runner.count > 1 and snapshots is not None and bool(snapshots.first))
        kept = None if isinstance(origin, str) else origin["beside"]
        self._rule_runner.restart(kept, is_fresh)
        self._gauge.update_ratios.reset()
        if kept is None:
            self._gauge.update_ratios.readings = 0
        if self._buffers is not None and are_restored:
            self._buffers.settle(False)  # those of the snapshot
        if is_fresh and snapshots is not None:
            snapshots.restart_averages()
            snapshots.begin(number)


def _trained() -> set[int]:
    """The ids of the parameters that treated optimizers move."""
    return {id(p) for optimizer in TREATED for group in optimizer.param_groups for p in group["params"]}
