"""Where an arm of a trial plays: all that a step can change stands there as a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from grad_callbacks.events import Alert
from grad_callbacks.measurement import Layers, UpdateRatios
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.step import OptimizerStep
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.pending_step import PendingStep
from grad_callbacks.treatment.trial.optimizer_copy import copy_of
from grad_callbacks.treatment.trial.replicas import Made, attempt


@dataclass(frozen=True)
class Start:
    """Where all arms begin.

    Attributes:
        model: Is trained.
        optimizer: Trains it.
        layers: What the optimizer trains.
        group: The processes that train replicas; None for one alone.
        prescription: Its remedies, as they are now.
        step: The step that raised the alert.
        alert: Is to be answered.
        loss: Level of the loss before it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    layers: Layers
    group: dist.ProcessGroup | None
    prescription: Prescription
    step: PendingStep
    alert: Alert
    loss: float

    def attempt(self, action: Callable[[], Made | None]) -> Made | None:
        """What an action gives; None on all replicas if it fails, or gives nothing, on one of them."""
        return attempt(action, self.group, self.layers.device)


@dataclass(frozen=True)
class Sandbox:
    """Copies of optimizer, learning rate, prescription and step; the model works on copies of its tensors meanwhile.

    ``motion`` measures the steps of the copy.
    """

    optimizer: torch.optim.Optimizer
    rate: LearningRate
    prescription: Prescription
    handle: OptimizerStep
    motion: UpdateRatios


@contextmanager
def staged(start: Start) -> Iterator[Sandbox | None]:
    """Set a stage on all replicas, or on none of them if one has no room for it.

    Afterwards model, gradients, optimizer and random numbers are as they were, to the bit.
    """
    with ExitStack() as stack:
        yield start.attempt(lambda: stack.enter_context(_staged(start)))


@contextmanager
def _staged(start: Start) -> Iterator[Sandbox]:
    handle = start.step.handle
    gradients = [(parameter, parameter.grad) for parameter in start.layers.parameters]
    before = [(parameter, parameter.data_ptr()) for parameter in start.model.parameters()]
    with undisturbed(start.model):
        for weight, place in before:
            if weight.data_ptr() == place:  # too large for it to copy: nothing writes to weights in a diagnosis
                weight.data = weight.data.clone()
        for parameter, gradient in gradients:
            parameter.grad = None if gradient is None else _unscaled(gradient, handle.loss_scale)
        torch.manual_seed(start.alert.step)
        twin = copy_of(start.optimizer, handle.learning_rate.clean())
        rate = LearningRate(twin)
        rate.scale = handle.learning_rate.scale
        own = OptimizerStep(start.step.incoming, twin, rate)
        own.is_taken = handle.is_taken
        assert handle.run_state is not None
        snapshots = handle.run_state.snapshots
        own.run_state = replace(
            handle.run_state, snapshots=None if snapshots is None else snapshots.put_back_into(twin)
        )
        prescription = copy.deepcopy(start.prescription)
        start.prescription.detach()
        try:
            prescription.attach(start.model)
            yield Sandbox(twin, rate, prescription, own, UpdateRatios(start.layers))
        finally:
            prescription.detach()
            start.prescription.attach(start.model)


@torch.no_grad()
def _unscaled(gradient: Tensor, loss_scale: float | Tensor) -> Tensor:
    return gradient / (loss_scale.to(gradient.device) if isinstance(loss_scale, Tensor) else loss_scale)
