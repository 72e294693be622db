"""Sandbox for a trial: copies of everything a step can modify."""

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
from grad_callbacks.treatment.trial.replicas import Made, on_all_replicas


@dataclass(frozen=True)
class TrialSetup:
    """What all candidates of a trial begin with.

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

    def on_all_replicas(self, action: Callable[[], Made | None]) -> Made | None:
        """The result of an action; None on all replicas if it fails, or has none, on one of them."""
        return on_all_replicas(action, self.group, self.layers.device)


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
def sandbox_for(setup: TrialSetup) -> Iterator[Sandbox | None]:
    """Make a sandbox on all replicas, or on none of them if one has no memory for it.

    Afterwards model, gradients, optimizer and random numbers are as they were, to the bit.
    """
    with ExitStack() as stack:
        yield setup.on_all_replicas(lambda: stack.enter_context(_sandbox_for(setup)))


@contextmanager
def _sandbox_for(setup: TrialSetup) -> Iterator[Sandbox]:
    handle = setup.step.handle
    gradients = [(parameter, parameter.grad) for parameter in setup.layers.parameters]
    before = [(parameter, parameter.data_ptr()) for parameter in setup.model.parameters()]
    with undisturbed(setup.model):
        for weight, place in before:
            if weight.data_ptr() == place:  # too large for it to copy: nothing writes to weights in a diagnosis
                weight.data = weight.data.clone()
        for parameter, gradient in gradients:
            parameter.grad = None if gradient is None else _unscaled(gradient, handle.loss_scale)
        torch.manual_seed(setup.alert.step)
        copied = copy_of(setup.optimizer, handle.learning_rate.clean())
        rate = LearningRate(copied)
        rate.scale = handle.learning_rate.scale
        own = OptimizerStep(setup.step.incoming, copied, rate)
        own.is_taken = handle.is_taken
        assert handle.run_state is not None
        snapshots = handle.run_state.snapshots
        own.run_state = replace(
            handle.run_state, snapshots=None if snapshots is None else snapshots.put_back_into(copied)
        )
        prescription = copy.deepcopy(setup.prescription)
        prescription.planned.barrier.lets_through = True  # a remedy that fails has lost
        setup.prescription.detach()
        try:
            prescription.attach(setup.model)
            yield Sandbox(copied, rate, prescription, own, UpdateRatios(setup.layers))
        finally:
            prescription.planned.barrier.lets_through = False
            prescription.detach()
            setup.prescription.attach(setup.model)


@torch.no_grad()
def _unscaled(gradient: Tensor, loss_scale: float | Tensor) -> Tensor:
    return gradient / (loss_scale.to(gradient.device) if isinstance(loss_scale, Tensor) else loss_scale)
