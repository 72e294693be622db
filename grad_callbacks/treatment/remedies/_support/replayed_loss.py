"""The loss of the batch at hand, computed again to try a change out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

from grad_callbacks._utils.compiled import can_run_eagerly
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.measurement.replay import undisturbed
from grad_callbacks.treatment.remedies._support.agreement import from_all
from grad_callbacks.treatment.step.run_state import RunState


def can_be_replayed(run_state: RunState) -> bool:
    """True if hooks see what happens when the batch is run again (see :func:`can_run_eagerly`)."""
    return run_state.batch.replay is not None and can_run_eagerly(run_state.model)


def replayed_loss(run_state: RunState, weights: Mapping[int, Tensor] | None = None) -> float:
    """Run the batch again, forward and backward, and leave model and batch as they were.

    Args:
        run_state: Has the batch.
        weights: Used in place of the model's, by the id of the parameter.

    Returns:
        The loss, the mean of all processes'; NaN if it, or its gradient, cannot be computed.
    """
    loss = math.nan
    kept = [(tensor, tensor._version, tensor.detach().clone()) for tensor in tensors_in(run_state.batch.content)]
    with suppress(Exception), undisturbed(run_state.model):  # the user's code
        for parameter in run_state.model.parameters():
            if weights and id(parameter) in weights:
                parameter.data = weights[id(parameter)].to(parameter.device, copy=True)
        assert run_state.batch.replay is not None
        value = run_state.batch.replay()
        trained = [parameter for parameter in run_state.model.parameters() if parameter.requires_grad]
        torch.autograd.grad(value, trained, allow_unused=True)
        loss = float(value.detach())
    for tensor, version, before in kept:
        if tensor._version != version:
            tensor.detach().copy_(before)
    losses = from_all(loss)
    return sum(losses) / len(losses)
