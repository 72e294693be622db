"""The engine: for one optimizer, from gradients to reading to alerts to interventions, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.build import build, load_named_states
from grad_callbacks._utils.optimizers import unwrapped
from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.diagnosis import RunContext
from grad_callbacks.detection.rules import RULES, Rule
from grad_callbacks.engine.remedy_runner import NO_TREATMENT, RemedyRunner, prescription_for
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import About, Batch, Gauge, Reading, StepPlan, arrives_later, replicas_of
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import Plan
from grad_callbacks.treatment.step import OptimizerStep
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.trial import Trial
from grad_callbacks.treatment.trial.contest import Contest


class Engine:
    """Watches one optimizer, and treats it if there is a prescription. Knows no framework but torch.

    Call :meth:`before_step` when the gradients are complete and before the optimizer uses them. The engine hooks
    into the optimizer to see the step itself; :meth:`close` takes the hooks away::

        engine = Engine(model, optimizer, prescription=Prescription())
        for inputs, targets in batches:
            loss = criterion(model(inputs), targets)
            loss.backward()
            engine.before_step(loss=loss)
            optimizer.step()
            optimizer.zero_grad()
        engine.close()
        print(engine.record.report())

    On the CPU a step is measured, judged and treated before it is taken. A GPU runs behind the host, and the host
    does not wait for it: a step's numbers are judged when the next one comes, exactly one step later, so that all
    processes of a distributed run decide alike. What is switched on by then acts on the device itself, in time. Three
    things make the host wait: a prescription that skips the steps of exploding gradients; one that skips non-finite
    ones for an optimizer that is neither ``fused=True`` nor under a loss scaler, since only the host can make such an
    optimizer skip (fused SGD too in its first step, before it has momentum); and sparse gradients.

    In a sharded run every process must have an engine, and call it at the same steps.

    Args:
        model: Gives the layers their names and their order.
        optimizer: Its parameters are watched.
        rules: Judge the readings, in this order: rules, names or plain values; by default all built-in ones.
        prescription: Answers the alerts: a prescription or the plan for one; None never changes training.
        every_n_steps: Measure every so many steps. What happens between is not seen and not treated, except by
            remedies that are already switched on.
        record: Where the findings go; share it between the engines of several optimizers.
        index: The optimizer's index among several.
        on_step_result: Called with each step that has been judged.
        agree_on: Makes the layers' order the same on all processes, given this process's own.
        diagnose: Look for the cause of an alert in model and batch, which may take some passes over the batch. False
            leaves it at what the rule has guessed.
        trial: How remedies are tried out before one is applied; None applies them as prescribed. Needs batches that
            can be replayed.

    Raises:
        ValueError: If a rule or remedy is unknown, ``every_n_steps`` is no whole number of at least 1, another engine
            treats the optimizer already, or the processes hold different layers.

    Attributes:
        record: Alerts, interventions, verdict, outcome, history and report.
        gauge: Takes the readings.
        seen: Number of steps so far.
        measured: Number of steps measured so far.
        nonfinite_steps: Readings with a non-finite gradient so far.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rules: Sequence[Any] | None = None,
        prescription: Prescription | Plan | str | None = None,
        every_n_steps: int = 1,
        record: Record | None = None,
        index: int = 0,
        on_step_result: Callable[[StepResult], object] | None = None,
        agree_on: Callable[[list[str]], list[str]] | None = None,
        diagnose: bool = True,
        trial: Trial | None = None,
    ) -> None:
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.optimizer = unwrapped(optimizer)
        chosen = list(RULES) if rules is None else rules
        self.rules: list[Rule] = [copy.deepcopy(build(rule, RULES, "rule", Rule)) for rule in chosen]
        self.prescription = prescription_for(self.optimizer, prescription)
        self.every_n_steps = at_least("every_n_steps", every_n_steps, 1)
        self.record = record or Record()
        self.index = index
        self.seen = self.measured = 0
        self.nonfinite_steps = 0
        self.learning_rate = LearningRate(self.optimizer)
        self._on_step_result = on_step_result
        self._last: tuple[int, Reading] | None = None  # with its place in the history
        self._is_closed = False
        self._unjudged: PendingStep | None = None
        self._untaken: PendingStep | None = None
        self._evaluations: int | None = None  # of the closure in the step under way; None outside of a step
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._enter_step),
            self.optimizer.register_step_post_hook(self._after_step),
        ]
        self.gauge = Gauge(self.model, self.optimizer, agree_on, replicas_of(model))
        follower = RunContext(self.model, self.gauge.layers.sharding is not None) if diagnose else None
        self._judges = RuleRunner(self.rules, self.optimizer, follower)
        self._care: RemedyRunner | None = None
        if self.prescription is not None:
            known = self.model, self.optimizer, self.prescription, self.gauge
            contest = None if trial is None else Contest(*known, trial, self.record.trials, index)
            self._care = RemedyRunner(*known, self._judges, contest)

    @property
    def active(self) -> list[str]:
        """The kinds of trouble that were still there at the last reading."""
        return self._judges.active

    @property
    def nbytes(self) -> int:
        """Bytes that snapshots, and batches kept for trials, take at the moment."""
        return self._care.nbytes if self._care is not None else 0

    def before_backward(self, loss: Tensor) -> None:
        """Learn the order of the layers from the loss, and prepare its backward pass.

        Only a remedy that works in the backward pass itself needs this call (``MaskUndefined``).
        """
        self.gauge.observe(loss)
        if self.prescription is not None:
            self.prescription.before_backward(loss)

    def before_step(
        self,
        step: int | None = None,
        loss: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
        context: StepContext | None = None,
        batch: Batch | None = None,
    ) -> StepResult | None:
        """Measure, judge and treat the step that the optimizer is about to take.

        Args:
            step: Its number; by default steps are counted from 0.
            loss: The training loss, a scalar: it tells whether a remedy helped, and its graph the order of the
                layers, which is that of registration without it.
            scaler: The loss scaler that will take the step. Gradients are unscaled here if they are not yet, so do
                not unscale them afterwards.
            context: What is special about the step, instead of ``scaler`` and ``batch``.
            batch: The batch, and how to compute its loss again, for the diagnosis of an alert.

        Returns:
            What happened at the step that has been judged: this one, or on an accelerator the one before. None if
            there is no such step, or if it had no gradients.
        """
        if self._is_closed:
            raise RuntimeError("this engine was closed: make a new one to go on watching the optimizer")
        if self._evaluations is not None:
            self._evaluations += 1
            if self._evaluations > 1:
                return None  # LBFGS and the like come here several times in a step: the first is the step's reading
        result = self._take_up(step, loss, scaler, context, batch)
        if loss is not None:
            self.record.feed(loss, self.index)
        return result

    def _take_up(
        self,
        step: int | None,
        loss: Tensor | None,
        scaler: torch.amp.GradScaler | None,
        context: StepContext | None,
        batch: Batch | None,
    ) -> StepResult | None:
        earlier = self.settle()
        self.learning_rate.follow()
        if loss is not None:
            self.gauge.observe(loss)
        if context is None:
            context = StepContext.of_scaler(scaler, self.optimizer) if scaler is not None else StepContext()
            is_scalar = loss is not None and loss.numel() == 1
            context = replace(context, loss=loss if is_scalar else None, batch=batch or Batch())
        self._release_step()  # of a step that was not taken: a loss scaler has skipped it
        self.gauge.prepare()
        if self._care is not None:
            self._care.look_around(context)
        place, self.seen = self.seen, self.seen + 1
        if place == 0:
            self._judges.open(is_first=(step or 0) <= self.index)  # the steps of several optimizers count together
            if self._care is not None:
                self._care.open(step or 0)
        if place % self.every_n_steps and not (self._care and self._care.latest):
            return earlier
        under_way = self._measure(place if step is None else step, context)
        if under_way is None:
            return earlier
        self.measured += 1
        self._unjudged = self._untaken = under_way
        if not under_way.on_device:
            return self.settle()
        if self._care is not None:
            self._care.act(under_way)
        return earlier

    def settle(self) -> StepResult | None:
        """Judge the step that is still to be judged and return what happened; None if there is none."""
        step, self._unjudged = self._unjudged, None
        if step is None:
            return None
        reading = step.reading
        if "moved" in step.incoming.measurement.companions:
            self._note_motion()
        if not reading.present.any():
            return None  # of a sharded run: seen only now
        step.handle.is_taken |= step.on_device
        self._last = (self.record.readings.append(reading), reading)
        self.nonfinite_steps += not reading.is_finite
        trials = len(self.record.trials)
        alerts, interventions = self._judge(step)
        if self._care is not None and not step.on_device:
            self._care.act(step)
        norm = step.count_acts(self._care.latest if self._care is not None else {})
        found = alerts, interventions, tuple(self.record.trials[trials:])
        rate = self.learning_rate
        result = StepResult.of(step, norm, *found, lr_scale=rate.scale, rate=rate.effective()[0])
        if self._on_step_result is not None:
            self._on_step_result(result)
        return result

    def close(self) -> None:
        """Judge what is left, and let go of the optimizer: hooks removed, the user's learning rates in place."""
        try:
            self.settle()
            self._take_up_motion()
        finally:  # a device that has failed gives no numbers any more
            self._is_closed = True
            self._release_step()
            self.gauge.close()
            self._judges.close()
            self.learning_rate.remove()
            for hook in self._hooks:
                hook.remove()
            if self._care is not None:
                self._care.close()

    def _measure(self, number: int, context: StepContext) -> PendingStep | None:
        on_device = arrives_later(self.gauge.layers.device) and not self._must_wait(context)
        plan = StepPlan.of(self.optimizer, self.learning_rate.effective())
        about = About(number, self.index, context.under_scaler, context.fill, context.clip_at, context.loss)
        incoming = self.gauge.take(plan, about, context.loss_scale)
        if incoming is None:
            return None
        handle = OptimizerStep(
            incoming, self.optimizer, self.learning_rate, context.loss_scale, context.under_scaler, on_device
        )
        return PendingStep(incoming, handle, self.learning_rate.scale, on_device, context.batch)

    def _must_wait(self, context: StepContext) -> bool:
        return self._care is not None and self._care.must_wait(context)

    def _judge(self, step: PendingStep) -> tuple[list[Alert], list[Intervention]]:
        """From the reading to what is done about it."""
        care, judges = self._care, self._judges
        before = judges.course.level
        alerts = judges.judge(step)
        begun = care.begin(step) if care is not None and not alerts and judges.count == 1 else None
        if begun is not None:
            alerts.append(begun[0])
        for alert in alerts:
            self.record.add(alert, late=step.on_device)
        self.record.active[self.index] = judges.active
        is_near = judges.is_near
        self.gauge.update_ratios.is_wanted = is_near
        judges.note(step)
        if care is None:
            return alerts, []
        interventions = care.answer(alerts, step, before) if begun is None else [begun[1]]
        interventions += care.support(interventions, step)
        self.record.interventions.extend(interventions)
        care.enter(interventions, step)
        self.record.active[self.index] = judges.active
        care.keep_a_snapshot(step, step.reading.is_finite and not alerts and not judges.active, is_near)
        return alerts, interventions

    def _enter_step(self, *_: Any) -> None:
        self._evaluations = 0

    def _after_step(self, *_: Any) -> None:
        self._evaluations = None
        self.gauge.update_ratios.after_step()
        self._release_step()

    def _release_step(self) -> None:
        if self._untaken is not None:
            self._untaken.handle.after()
            self._untaken = None

    def _take_up_motion(self) -> None:
        if self.gauge.fetch_update_ratios():
            self._note_motion()

    def _note_motion(self) -> None:
        if self._last is not None:
            place, reading = self._last
            self.record.readings.set_update_ratios(place, self.gauge.update_ratios.by_layer[reading.layer_present])

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists.

        The record has its own state: ask for that afterwards, since this judges the step that is still to be judged.
        """
        self.settle()
        self._take_up_motion()
        care = self._care.state_dict(self._mine()) if self._care is not None else NO_TREATMENT
        return {
            **self._judges.state_dict(),
            **care,
            "gauge": self.gauge.state_dict(),
            "rules": [[type(rule).__name__, rule.state_dict()] for rule in self.rules],
            "lr_scale": self.learning_rate.scale,
            "seen": self.seen,
            "measured": self.measured,
            "nonfinite_steps": self.nonfinite_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; load the record first, its interventions are counted on.

        Raises:
            ValueError: If rules or prescription are not those it was saved with.
        """
        load_named_states(self.rules, state["rules"], "rules")
        if self._care is not None:
            self._care.load_state_dict(state, self._mine())
            self.learning_rate.scale = state["lr_scale"]
        self.gauge.load_state_dict(state["gauge"])
        self.seen, self.measured = state["seen"], state["measured"]
        self.nonfinite_steps = state["nonfinite_steps"]
        self._judges.load_state_dict(state)

    def _mine(self) -> list[Intervention]:
        return [made for made in self.record.interventions if made.optimizer == self.index]
