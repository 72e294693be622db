"""Steps in which nothing can be wrong: taken by their norms and loss alone, and judged together later."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks.detection.rules.leeway import NO_LEEWAY
from grad_callbacks.engine.no_treatment import NoTreatment
from grad_callbacks.engine.reading_log import ReadingLog
from grad_callbacks.engine.remedy_runner import RemedyRunner
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.measurement import Batch, Gauge, QuietBlock, Reading, StepPlan, is_alone
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import norms_on_host
from grad_callbacks.measurement.quiet_block import QuietReading, QuietTemplate, shared_settings
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.treatment.step.learning_rate import LearningRate


class QuietSteps:
    """Tells which steps need not be judged at once, and keeps their readings until they are.

    After each reading the rules say how far the run may go on before they can have anything to say
    (:meth:`~grad_callbacks.Rule.leeway`), the remedies for how long they have nothing to do, and the gauge for how long
    only norms are measured. Within that a step takes one pass over the gradients and a few comparisons. What leaves
    these bounds is judged at once, after all that was kept: alerts and remedies come in the step they belong to.

    On the CPU of one process, for one optimizer, without a loss scaler. In all other runs, with rules or remedies that
    do not say how long they may wait, and once anything was switched on, each step is judged at once.

    Args:
        gauge: Takes the readings.
        learning_rate: The learning rate of the optimizer.
        rules: Judge the readings.
        optimizer: Takes the steps.
        treatment: Answers the alerts.
        log: Appends the readings to the history.
    """

    def __init__(
        self,
        gauge: Gauge,
        learning_rate: LearningRate,
        rules: RuleRunner,
        optimizer: torch.optim.Optimizer,
        treatment: RemedyRunner | NoTreatment,
        log: ReadingLog,
    ) -> None:
        self._gauge, self._optimizer, self._learning_rate = gauge, optimizer, learning_rate
        self._rules, self._treatment, self._log = rules, treatment, log
        self._leeway = NO_LEEWAY
        self._left = 0  # readings that may still be kept
        self._spare = 0  # losses beyond the leeway that there may still be among them
        self._are_weights_due = False  # the next reading measures them
        self._readings: list[QuietReading] = []
        self._plans: list[StepPlan] = []
        self._batch = Batch()
        self._base: Reading | None = None  # the latest that was measured in full
        self._template: QuietTemplate | None = None
        self._present: list[bool] | None = None  # which parameters had a gradient; None for all
        self._settings: list[tuple[Any, ...]] = []
        self._plan: StepPlan | None = None
        self._layers: Layers | None = None
        self._accumulate: torch.dtype | None = None  # for norms; None where a reading takes more than norms

    @property
    def is_open(self) -> bool:
        """True if the next step may be one of them."""
        return self._left > 0

    def close(self) -> None:
        """Keep no more readings until :meth:`begin`."""
        self._left, self._base = 0, None
        self._readings, self._plans, self._batch = [], [], Batch()

    def begin(self, reading: Reading, plan: StepPlan) -> None:
        """Begin after a reading that has been judged by itself."""
        self._left, self._base, self._template, self._plan = 0, reading, None, plan
        is_known = math.isfinite(reading.loss) or not reading.has_loss
        if not reading.is_finite or reading.fill != 1 or not is_known or reading.layers is not self._gauge.layers:
            return
        if self._layers is not reading.layers:
            self._layers, self._accumulate = reading.layers, _accumulates(self._gauge)
        self._present = None if reading.is_complete else reading.present.tolist()
        self._settings = shared_settings(self._optimizer.param_groups)
        self._go_on()

    def _go_on(self) -> None:
        if self._base is None or self._accumulate is None or self._log.is_shared:
            return
        left = min(self._gauge.until_due(), self._treatment.idle_for(self._rules.count))
        if left > 0:
            self._leeway = self._rules.leeway()
            self._spare = self._leeway.spare
            until_weights = self._gauge.update_ratios.until_due
            self._are_weights_due = until_weights == 0
            # That reading is a block of its own: the weights' norms are others from there on.
            self._left = max(0, min(left, self._leeway.readings, until_weights or 1))

    def take(self, step: int, context: StepContext) -> StepResult | None:
        """Keep the reading of the step to come; None if it must be judged at once.

        Args:
            step: Its number.
            context: What gradients alone do not show of the step.
        """
        base = self._base
        if not self._readings:
            self._log.take_up_motion()
        if base is None or context.fill != 1 or context.under_scaler or context.clip_at != base.clip_at:
            return None
        loss = self._loss_of(context, base.has_loss)
        if loss is None or isinstance(context.loss_scale, Tensor) or context.loss_scale != 1:
            return None
        plan = self._plan_now()
        norms = None if plan is None else self._norms()
        if plan is None or norms is None:
            return None
        norm = math.sqrt(np.add.reduce(norms**2))
        if not norm <= self._leeway.norm:
            return None
        ratios = self._gauge.update_ratios
        ratios.skip_step()
        if self._are_weights_due:
            self._gauge.measure_weights()
        if self._template is None or not self._template.is_current(ratios):
            self._template = QuietTemplate(base, ratios)
        self._treatment.let_pass()
        reading = self._template.reading(step, norms, norm, loss, plan)
        self._left -= 1
        self._readings.append(reading)
        self._plans.append(plan)
        self._batch = context.batch
        if self._left == 0:
            self.settle()
        return StepResult.of_quiet(reading, plan.rates[0])

    def _loss_of(self, context: StepContext, is_known: bool) -> float | None:
        """The loss, NaN if it is unknown as before; None if it is beyond the leeway."""
        if context.loss is None:
            return None if is_known else math.nan
        loss = float(context.loss.item())
        if not is_known or not math.isfinite(loss):
            return None
        if loss > self._leeway.loss:
            self._spare -= 1
        return loss if self._spare >= 0 else None

    def _plan_now(self) -> StepPlan | None:
        """How the optimizer takes the step; None if more than the learning rate has changed."""
        self._learning_rate.follow()
        settings = shared_settings(self._optimizer.param_groups)
        if settings == self._settings:
            return self._plan
        before, self._settings = self._plan, settings
        self._plan = StepPlan.of(self._optimizer, self._learning_rate.effective())
        return self._plan if before is not None and before.is_like(self._plan) else None

    def _norms(self) -> Any:
        """The norms; None if other parameters have a gradient than before, or there are other parameters."""
        if self._layers is None or self._accumulate is None or not self._gauge.is_grouped():
            return None
        parameters = self._layers.parameters
        gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
        if (len(gradients) != len(parameters)) != (self._present is not None):
            return None
        try:
            norms = norms_on_host(gradients, self._accumulate)
        except (RuntimeError, NotImplementedError):  # sparse, or part of a graph
            return None
        if self._present is None:
            return norms
        present = [parameter.grad is not None for parameter in parameters]
        if present != self._present:
            return None
        spread = np.zeros(len(present))
        spread[present] = norms
        return spread

    def settle(self) -> None:
        """Have the readings judged that were kept."""
        if not self._readings:
            return
        block = QuietBlock(self._readings, self._plans, self._batch, self._rules.count + len(self._readings))
        self._readings, self._plans, self._batch, self._left = [], [], Batch(), 0
        block.predict_displacements()
        self._log.append_block(block)
        self._rules.take_in(block)
        self._gauge.look_closely(self._rules.is_near)
        self._treatment.take_in(block)
        self._gauge.pass_over(len(block))
        self._go_on()


def _accumulates(gauge: Gauge) -> torch.dtype | None:
    """The type in which norms are added up; None where they are not those of plain tensors on the CPU, of one type."""
    layers = gauge.layers
    dtypes = {parameter.dtype for parameter in layers.parameters}
    is_alike = len(dtypes) == 1 and all(p.device.type == "cpu" and p.numel() > 0 for p in layers.parameters)
    if not is_alike or not layers.are_plain or gauge.replicas is not None or not is_alone():
        return None
    return torch.float64 if dtypes == {torch.float64} else torch.float32
