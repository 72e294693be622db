"""Measuring the step that an optimizer is about to take."""

from __future__ import annotations

from dataclasses import replace

import torch

from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.measurement import About, Gauge, StepPlan
from grad_callbacks.treatment.step import OptimizerStep
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.pending_step import PendingStep


def measured_step(
    gauge: Gauge,
    optimizer: torch.optim.Optimizer,
    learning_rate: LearningRate,
    context: StepContext,
    number: int,
    index: int,
    on_device: bool,
    takes_own_steps: bool = False,
) -> PendingStep | None:
    """Take a step's reading; None if it has no gradients.

    Args:
        gauge: Takes it.
        optimizer: Takes the step.
        learning_rate: The learning rate of the optimizer.
        context: What gradients alone do not show of the step.
        number: The step's number.
        index: The optimizer's index among several.
        on_device: The step is taken before it is judged.
        takes_own_steps: A remedy's steps do not follow from the gradient.
    """
    plan = StepPlan.of(optimizer, learning_rate.effective())
    if takes_own_steps:
        plan = replace(plan, reach=None)
    about = About(number, index, context.under_scaler, context.fill, context.clip_at, context.loss)
    gauge.replay(context.batch.replay)
    incoming = gauge.take(plan, about, context.loss_scale)
    if incoming is None:
        return None
    handle = OptimizerStep(incoming, optimizer, learning_rate, context.loss_scale, context.under_scaler, on_device)
    return PendingStep(incoming, handle, learning_rate.scale, on_device, context.batch)
