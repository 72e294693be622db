"""The engine: for one optimizer, from gradients to reading to alerts to interventions, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.checkpoint import load_named_states, missing_keys_named
from grad_callbacks._utils.optimizers import unwrapped
from grad_callbacks._utils.renamed import renamed
from grad_callbacks._utils.validation import at_least, flag
from grad_callbacks.detection.diagnosis import RunContext
from grad_callbacks.engine.judging import judged
from grad_callbacks.engine.measuring import measured_step
from grad_callbacks.engine.quiet_steps import QuietSteps
from grad_callbacks.engine.reading_log import ReadingLog
from grad_callbacks.engine.resuming import refitted
from grad_callbacks.engine.rule_runner import RuleRunner, built_rules
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.engine.step_hooks import StepHooks
from grad_callbacks.engine.treating import prescription_for, treatment_of
from grad_callbacks.events import Intervention
from grad_callbacks.measurement import Batch, Gauge, arrives_later, replicas_of
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import Plan
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.trial import Trial


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

    On the CPU a step is measured, judged and treated before it is taken. The host does not wait for a GPU: a step's
    numbers are judged exactly one step later, so that all processes of a distributed run decide alike; remedies that
    are on by then act on the device, in time. The host waits only for sparse gradients, and for a prescription that
    skips the steps of exploding gradients, or non-finite ones of an optimizer that is neither ``fused=True`` nor under
    a loss scaler: only the host can make it skip (fused SGD too in its first step, before it has momentum). In a
    sharded run every process must have an engine, and call it at the same steps.

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
        diagnose: Look for the cause of an alert in model and batch, in some passes, not only by what the rule guesses.
        trial: How remedies are tried out, on batches that can be replayed; None applies them as prescribed.
        memory: What snapshots may take (see :class:`~grad_callbacks.treatment.step.snapshot_store.SnapshotStore`).
        averages: Objects beside the model that may hold averages of its weights, which go back with them.

    Raises:
        ValueError: If an argument is wrong, the plan answers a kind of alert that no rule raises, another engine treats
            the optimizer already, or the processes hold different layers.

    Attributes:
        record: Alerts, interventions, verdict, outcome, history and report.
        gauge: Takes the readings.
        seen: Number of steps so far.
        measured: Number of steps measured so far.
        nonfinite_steps: Readings with a non-finite gradient so far.
    """

    @renamed(on_outlook="on_step_result")
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
        memory: float | None = None,
        averages: Sequence[object] = (),
    ) -> None:
        self.model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.optimizer = unwrapped(optimizer)
        self.rules = built_rules(rules)
        self.every_n_steps = at_least("every_n_steps", every_n_steps, 1)
        flag("diagnose", diagnose)
        self.prescription = prescription_for(self.optimizer, prescription, {rule.kind for rule in self.rules})
        self.record = record or Record()
        self.index = index
        self.seen = self.measured = self.nonfinite_steps = 0
        self.learning_rate = LearningRate(self.optimizer)
        self._on_step_result = on_step_result
        self._is_closed = False
        self._unjudged: PendingStep | None = None
        self.gauge = Gauge(self.model, self.optimizer, agree_on, replicas_of(model))
        self._hooks = StepHooks(self.optimizer, self.gauge)
        run_context = RunContext(self.model, self.gauge.layers.sharding is not None) if diagnose else None
        self._rule_runner = RuleRunner(self.rules, self.optimizer, run_context)
        known = self.model, self.optimizer, self.prescription, self.gauge, self.learning_rate, self._rule_runner
        self._treatment = treatment_of(*known, trial, self.record, index, memory, averages)
        self._log = ReadingLog(self.record.readings, self.gauge)
        watched = self.gauge, self.learning_rate, self._rule_runner
        self._quiet = QuietSteps(*watched, self.optimizer, self._treatment, self._log)
        self.record.readings.follow(self._quiet.settle)

    @property
    def active(self) -> list[str]:
        """The kinds of alert that were active still at the last reading."""
        return self._rule_runner.active

    @property
    def nbytes(self) -> int:
        """Bytes that snapshots, and batches kept for trials, take at the moment."""
        return self._treatment.nbytes

    def before_backward(self, loss: Tensor) -> None:
        """Learn the order of the layers from the loss, and prepare its backward pass.

        Only a remedy that works in the backward pass itself needs this call (``MaskUndefined``).
        """
        self.gauge.observe(loss)
        self._treatment.before_backward(loss)

    @renamed(around="context")
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
        if self._hooks.is_evaluated_again():
            return None  # the first call of a closure is the step's reading
        context = context or StepContext.of_call(self.optimizer, loss, scaler, batch)
        result = self._let_pass(step, context) or self._take_up(step, context, loss)
        if loss is not None:
            self.record.feed(loss, self.index)
        return result

    def _let_pass(self, step: int | None, context: StepContext) -> StepResult | None:
        if not self._quiet.is_open or self.seen % self.every_n_steps:
            return None
        self._hooks.release()
        result = self._quiet.take(self.seen if step is None else step, context)
        if result is not None:
            self.seen, self.measured = self.seen + 1, self.measured + 1
            self._tell(result)
        return result

    def _take_up(self, step: int | None, context: StepContext, loss: Tensor | None) -> StepResult | None:
        earlier = self.settle()
        self.learning_rate.follow()
        if loss is not None:
            self.gauge.observe(loss)
        self._hooks.release()
        self.gauge.prepare()
        self._treatment.read_context(context)
        place, self.seen = self.seen, self.seen + 1
        if place == 0:
            self._rule_runner.open(is_first=(step or 0) <= self.index)  # several optimizers' steps count together
            self._treatment.open(step or 0)
        if place % self.every_n_steps and not self._treatment.latest:
            return earlier
        on_device = arrives_later(self.gauge.layers.device) and not self._treatment.must_wait(context)
        known = self.gauge, self.optimizer, self.learning_rate, context
        own = self.prescription is not None and self.prescription.takes_own_steps
        under_way = measured_step(*known, place if step is None else step, self.index, on_device, own)
        if under_way is None:
            return earlier
        self.measured, self._unjudged, self._hooks.untaken = self.measured + 1, under_way, under_way
        if not on_device:
            return self.settle()
        self._treatment.act(under_way)
        return earlier

    def settle(self) -> StepResult | None:
        """Judge the step that is still to be judged and return what happened; None if there is none."""
        self._quiet.settle()
        step, self._unjudged = self._unjudged, None
        if step is None:
            return None
        reading = step.reading
        if "moved" in step.incoming.measurement.companions:
            self._log.note_motion()
        if not reading.present.any():
            return None  # of a sharded run: seen only now
        step.handle.is_taken |= step.on_device
        self._log.append(reading)
        self.nonfinite_steps += not reading.is_finite
        trials = len(self.record.trials)
        alerts, interventions = judged(step, self._rule_runner, self._treatment, self.gauge, self.record, self.index)
        if not step.on_device:
            self._treatment.act(step)
        norm = step.count_acts(self._treatment.latest)
        found = alerts, interventions, tuple(self.record.trials[trials:])
        result = StepResult.of(step, norm, *found, self.learning_rate.scale, self.learning_rate.effective()[0])
        if not step.on_device:
            self._quiet.begin(reading, step.incoming.plan)
        self._tell(result)
        return result

    def _tell(self, result: StepResult) -> None:
        if self._on_step_result is not None:
            self._on_step_result(result)

    def close(self) -> None:
        """Judge what is left, and let go of the optimizer: hooks removed, the user's learning rates in place."""
        try:
            self.settle()
            self._log.take_up_motion()
        finally:  # a device that has failed gives no numbers any more
            self._is_closed = True
            self.record.readings.unfollow(self._quiet.settle)
            self._hooks.release()
            self.gauge.close()
            self._rule_runner.close()
            self.learning_rate.remove()
            self._hooks.remove()
            self._treatment.close()

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists.

        The record has its own state: ask for that afterwards, since this judges the step that is still to be judged.
        """
        self.settle()
        self._log.take_up_motion()
        return {
            **self._rule_runner.state_dict(),
            **self._treatment.state_dict(self._mine()),
            "gauge": self.gauge.state_dict(),
            "rules": [[name, state] for name, state in self._rule_runner.states()],
            "lr_scale": self.learning_rate.scale,
            "every_n_steps": self.every_n_steps,
            "seen": self.seen,
            "measured": self.measured,
            "nonfinite_steps": self.nonfinite_steps,
        }

    @missing_keys_named("the engine")
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; load the record first, its interventions are counted on.

        Rules and remedies that have changed since start afresh, or are dropped, with one warning.

        Raises:
            ValueError: If another version has saved it.
        """
        self._quiet.close()
        state = refitted(state, self._rule_runner.states(), self.prescription, self.every_n_steps)
        load_named_states(self.rules, state["rules"], "rules")
        self._treatment.load_state_dict(state, self._mine())
        self.gauge.load_state_dict(state["gauge"])
        self.seen, self.measured, self.nonfinite_steps = (state[k] for k in ("seen", "measured", "nonfinite_steps"))
        self._rule_runner.load_state_dict(state)

    def _mine(self) -> list[Intervention]:
        return [made for made in self.record.interventions if made.optimizer == self.index]
