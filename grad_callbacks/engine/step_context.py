"""What gradients alone do not show of the step that is about to use them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState

from grad_callbacks._utils.optimizers import unscales_itself
from grad_callbacks.measurement import Batch


@dataclass(slots=True, eq=False)  # a frozen one takes five times as long to make
class StepContext:
    """What gradients alone do not show of a step.

    Attributes:
        loss_scale: What the gradients are still multiplied with: a number, or the loss scaler's own tensor.
        under_scaler: A loss scaler is at work and skips steps that overflow.
        fill: Share of the accumulation window that was there when an epoch cut it short: the gradient is that much
            too small.
        clip_at: The norm to which the user's own clipping will clip afterwards.
        loss: The training loss of the step, as it is without any scaling; None if it is unknown.
        batch: The batch of the step, for the diagnosis of an alert.
        scaler: The loss scaler, whose scale goes into snapshots.
    """

    loss_scale: float | Tensor = 1.0
    under_scaler: bool = False
    fill: float = 1.0
    clip_at: float | None = None
    loss: Tensor | None = None
    batch: Batch = field(default_factory=Batch)
    scaler: torch.amp.GradScaler | None = None

    @classmethod
    def of_call(
        cls,
        optimizer: torch.optim.Optimizer,
        loss: Tensor | None,
        scaler: torch.amp.GradScaler | None,
        batch: Batch | None,
    ) -> StepContext:
        """Describe a step by the arguments of ``Engine.before_step``; a loss that is no scalar is not followed."""
        followed = loss if loss is not None and loss.numel() == 1 else None
        if scaler is None:
            return cls(loss=followed, batch=batch or Batch())
        return replace(cls.of_scaler(scaler, optimizer), loss=followed, batch=batch or Batch())

    @classmethod
    def of_scaler(cls, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> StepContext:
        """Describe a step under a loss scaler; unscales the gradients, unless the optimizer is fused and will itself.

        Args:
            scaler: Has scaled the loss.
            optimizer: Will be stepped by ``scaler.step(optimizer)``.
        """
        if not scaler.is_enabled():
            return cls()
        state = scaler._per_optimizer_states.get(id(optimizer), {})  # the only place that tells what is unscaled
        if scaler._scale is not None and state.get("stage", OptState.READY) is OptState.READY:
            if unscales_itself(optimizer):
                return cls(loss_scale=scaler._scale, under_scaler=True, scaler=scaler)
            scaler.unscale_(optimizer)
        return cls(under_scaler=True, scaler=scaler)
