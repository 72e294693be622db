"""Tries a step on copies of the weights, to see whether the learning rate is too high for the curvature.

A step of gradient descent lowers the loss only while the rate is below 2 over the curvature along it (with momentum
b, 2 (1 + b) over it: Cohen et al. 2021, sec. 2). So the loss of the same batch is taken after the step that the
optimizer is about to take. That needs no second derivative, works for every optimizer whose step can be computed in
advance, and takes one forward pass for each step tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.replay import undisturbed


@dataclass(frozen=True)
class StepTrialThresholds(Thresholds):
    """Thresholds of the trial of a step."""

    smaller_shares: tuple[float, ...] = threshold(
        (0.3, 0.1, 0.03, 0.01),
        "tried in this order until one lowers the loss",
        unit="shares of the learning rate",
        source="not measured",
    )
    overshoot: float = threshold(
        1.05, "a step after which the loss is larger is too long", unit="x loss before the step", source="not measured"
    )


LIMITS = StepTrialThresholds()


@dataclass(frozen=True)
class StepEvidence:
    """What the optimizer's next step would do to the loss of its own batch.

    Attributes:
        before: The loss without it; NaN if it could not be computed.
        after: The loss after it; infinite if it is not finite.
        share: The largest share of the learning rate tried that lowers the loss; NaN if none did, 1 if the whole does.
        curvature: Rate times curvature along the step: below 2 the loss falls. NaN if unknown.
    """

    before: float = math.nan
    after: float = math.nan
    share: float = math.nan
    curvature: float = math.nan

    @property
    def overshoots(self) -> bool:
        """True if the step makes the loss of its own batch larger."""
        return self.after > LIMITS.overshoot * self.before

    def evidence(self) -> dict[str, float]:
        """Return the finite numbers by name."""
        found = {
            "loss_before_step": self.before,
            "loss_after_step": self.after,
            "loss_ratio_of_step": self.after / self.before if self.before > 0 else math.nan,
            "step_overshoots": float(self.overshoots),
            "rate_that_helps": self.share,
            "curvature_times_rate": self.curvature,
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}


def try_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    replay: Callable[[], Tensor],
    rates: Sequence[float] | None = None,
    gradients: Sequence[Tensor | None] | None = None,
) -> StepEvidence:
    """Try the step that ``optimizer`` is about to take with the present gradients; leaves everything as it was.

    Takes at most 7 forward passes and as much memory as two copies of the weights. Where the step cannot be computed in
    advance (other optimizers than SGD, Adam, AdamW and RMSprop) or anything fails, nothing is known.

    Args:
        model: The model.
        optimizer: Has the gradients of the step.
        replay: Computes the loss of the batch.
        rates: Learning rates of the parameter groups, by default those in the groups.
        gradients: Instead of ``parameter.grad``, for all parameters of all groups in order.
    """
    try:
        with torch.no_grad():
            moves = _moves(optimizer, rates, gradients)
        if not moves:
            return StepEvidence()
        return _tried(model, moves, replay, _life(optimizer))
    except Exception:  # the user's code and memory: a diagnosis must not end a training
        return StepEvidence()


def loss_of(model: nn.Module, replay: Callable[[], Tensor] | None) -> float:
    """Return the loss of a batch with the weights as they are; NaN if it cannot be computed."""
    if replay is None:
        return math.nan
    try:
        with undisturbed(model), torch.no_grad():
            return float(replay().detach())
    except Exception:  # see above
        return math.nan


_Move = tuple[Tensor, Tensor, Tensor]  # parameter, its gradient, its change


def _tried(model: nn.Module, moves: list[_Move], replay: Callable[[], Tensor], life: float) -> StepEvidence:
    before = loss_of(model, replay)
    if not math.isfinite(before):
        return StepEvidence(before)
    slope = float(sum((gradient.double() * change.double()).sum().cpu() for _, gradient, change in moves))
    after = _loss_after(model, moves, replay, 1.0)
    if after <= LIMITS.overshoot * before and life > 1:
        # By the momentum a gradient goes on moving the weights: all of it counts.
        after = _loss_after(model, moves, replay, life)
        slope *= life
    share, latest = 1.0, after
    if after > LIMITS.overshoot * before:
        share = math.nan
        for smaller in LIMITS.smaller_shares:
            latest = _loss_after(model, moves, replay, smaller)
            if latest < before:
                share = smaller
                break
    tried = 1.0 if math.isnan(share) or share == 1 else share
    seen = after if tried == 1 else latest
    # Along the step the loss is before + slope * s + (curvature * rate) * |slope| * s^2 / 2, to second order.
    downhill = slope < 0 and math.isfinite(seen)
    curvature = 2 * (seen - before - slope * tried) / (-slope * tried**2) if downhill else math.nan
    return StepEvidence(before, after, share, curvature)


def _loss_after(model: nn.Module, moves: list[_Move], replay: Callable[[], Tensor], share: float) -> float:
    """The loss with the weights moved by a share of the step, infinite if it is not finite."""
    with undisturbed(model), torch.no_grad():
        for parameter, _, change in moves:
            # Another tensor for the time being: the weights themselves are not written to.
            parameter.data = torch.add(parameter.data, change, alpha=share)
        loss = float(replay().detach())
    return loss if math.isfinite(loss) else math.inf


def _life(optimizer: torch.optim.Optimizer) -> float:
    """How many times its first step a gradient moves the weights in all."""
    if not isinstance(optimizer, torch.optim.SGD):
        return 1.0
    momentum = max(float(group["momentum"]) for group in optimizer.param_groups)
    return 1 / (1 - momentum) if momentum < 1 else 1.0


def _moves(
    optimizer: torch.optim.Optimizer, rates: Sequence[float] | None, gradients: Sequence[Tensor | None] | None
) -> list[_Move]:
    moves: list[_Move] = []
    given = None if gradients is None else iter(gradients)
    for index, group in enumerate(optimizer.param_groups):
        rate = float(group["lr"] if rates is None else rates[index])
        sign = -1.0 if group.get("maximize") else 1.0
        for parameter in group["params"]:
            gradient = parameter.grad if given is None else next(given)
            if gradient is None or gradient.is_sparse or not parameter.requires_grad:
                continue
            change = _change(optimizer, group, parameter, sign * gradient)
            if change is None:
                return []
            moves.append((parameter, sign * gradient, -rate * change))
    return moves


def _change(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor, gradient: Tensor
) -> Tensor | None:
    """The step for a learning rate of 1, without weight decay; None if it cannot be computed in advance."""
    state: dict[str, Tensor] = optimizer.state.get(parameter, {})
    if isinstance(optimizer, torch.optim.SGD):
        momentum, buffer = float(group["momentum"]), state.get("momentum_buffer")
        if not momentum:
            return gradient
        moved = gradient if buffer is None else momentum * buffer + (1 - float(group["dampening"])) * gradient
        return gradient + momentum * moved if group["nesterov"] else moved
    if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        return _adam(group, state, gradient)
    if isinstance(optimizer, torch.optim.RMSprop) and not group["momentum"] and not group["centered"]:
        alpha = group["alpha"]
        square: Tensor = (1 - alpha) * gradient**2 + (alpha * state["square_avg"] if state else 0)
        return gradient / (square.sqrt() + float(group["eps"]))
    return None


def _adam(group: dict[str, Any], state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    first, second = map(float, group["betas"])
    step = float(state.get("step", 0)) + 1
    mean: Tensor = (1 - first) * gradient + (first * state["exp_avg"] if state else 0)
    square: Tensor = (1 - second) * gradient**2 + (second * state["exp_avg_sq"] if state else 0)
    if state and group.get("amsgrad"):
        square = torch.maximum(square, state["max_exp_avg_sq"])
    root: Tensor = (square / (1 - second**step)).sqrt() + float(group["eps"])
    unbiased: float = 1 - first**step
    return mean / unbiased / root
