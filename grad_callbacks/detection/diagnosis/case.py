"""What is known about the step of an alert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks.detection.diagnosis.activations import ActivationProbe
from grad_callbacks.events import Alert
from grad_callbacks.measurement.reading import Reading

Replay = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Case:
    """What is known about the step of an alert. Only the model is needed; the more is known, the surer the cause.

    Attributes:
        model: The model, with the weights of the alert's step.
        reading: The reading that raised the alert.
        optimizer: The optimizer whose gradients were read, with the gradients of the step.
        rates: Learning rates of its parameter groups as the step is taken with; by default those in the groups.
        loss: Training loss of the step; NaN if unknown.
        losses: Losses of the steps before, the latest last.
        batch: The batch of the step, whatever tensors are nested in it.
        previous_batch: The batch of the step before.
        batch_index: The batch's place in its epoch.
        replay: Computes the loss of the step's batch again. Everything it does to model and random numbers is undone.
            None where that is impossible: compiled or sharded models, a `training_step` that fetches its batches.
        replay_previous: The same for the batch of the step before.
        activations: A probe that saw the step's forward pass.
        first_gains: The weights' gains before the first step (``weight_gains``).
        first_rates: The learning rates that the run began with.
        highest_rates: The highest learning rates so far.
        earlier: The run's earlier alerts on this optimizer, in order.
        is_late: The step has been taken since, so weights and gradients are those of a later one (on a GPU).
    """

    model: nn.Module
    reading: Reading | None = None
    optimizer: torch.optim.Optimizer | None = None
    rates: tuple[float, ...] | None = None
    loss: float = math.nan
    losses: Sequence[float] = ()
    batch: Any = None
    previous_batch: Any = None
    batch_index: int | None = None
    replay: Replay | None = None
    replay_previous: Replay | None = None
    activations: ActivationProbe | None = None
    first_gains: Mapping[str, float] | None = None
    first_rates: tuple[float, ...] | None = None
    highest_rates: tuple[float, ...] | None = None
    earlier: Sequence[Alert] = ()
    is_late: bool = False
