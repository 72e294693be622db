"""Steps whose length does not depend on the size of the gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep

_ADAM = "Kingma & Ba 2015, algorithm 1"


@dataclass(frozen=True)
class AdaptiveStepThresholds(Thresholds):
    """The numbers of :class:`AdaptiveStep`."""

    stride: float = threshold(
        0.03,
        "largest step",
        unit="share of the weights' norm",
        source="measured: the better one of 0.03 and 0.1 on the failing runs of the corpus under SGD",
    )
    shallow: int = threshold(
        10,
        "layers with weights up to which steps after an initialisation need not be shorter",
        unit="layers",
        source="measured: a sigmoid net of 14 layers ended at a loss of 0.31 with shorter steps, at 0.33 without",
    )
    betas: tuple[float, float] = threshold((0.9, 0.999), "decay of the two moments", unit="1", source=_ADAM)


LIMITS = AdaptiveStepThresholds()

PASSING = ("", "bad batch")  # causes that go away by themselves


class AdaptiveStep(Remedy):
    """Makes SGD take the steps of Adam: each entry of the gradient is divided by its own recent size.

    Where a gradient vanishes or explodes over layers or over the steps of a sequence, or the rate or the loss is of the
    wrong size, no single rate suits all weights. This remedy supplements the one that answers the alert, and stays: the
    momentum is reset, and from then on a step moves the weights by ``stride`` of their norm at most, whatever the
    gradient's scale. Where the rate falls below the one it was switched on at the steps get shorter in proportion, so a
    schedule and a lowered rate still count; a rate that rises does not.

    A run that has learned something already, or met a bad batch, keeps its own steps. After an initialisation nets of
    more than 10 layers take steps that are shorter in proportion to their depth: those of all layers add up.

    Only for ``torch.optim.SGD``; other optimizers rescale by themselves, or are unknown. Plain recurrences, which need
    very short steps, and sharded and sparse gradients are left alone. It keeps two numbers per weight.
    Reference: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1, without a first moment where
    SGD has a momentum of its own; entries are limited to what a single outlier can reach there.

    Args:
        stride: Largest step, as a share of the weights' norm, above 0. 0.03 is the better one of 0.03 and 0.1 on the
            failing runs of the corpus under SGD.

    Raises:
        ValueError: If ``stride`` is not above 0.
    """

    bounds_steps = True
    sets_step_size = True
    changes_gradients = True
    supplements = True

    def __init__(self, stride: float = LIMITS.stride) -> None:
        self.stride = positive("stride", stride)
        self._engaged = False
        self._stride = self.stride
        self._scale: float | None = None  # what an entry of size 1 becomes, found at the first step
        self._rate = math.nan  # the rate at which it was found
        self._betas = LIMITS.betas  # decay of the two moments; none of the first where SGD averages gradients by itself
        self._count: Tensor | None = None  # finite steps, on the device
        self._first: list[Tensor | None] = []  # moments, for each parameter of the layers
        self._second: list[Tensor | None] = []

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Rescale from this step on. A second time only the moments are reset: they are of other weights."""
        self._forget()
        if self._engaged or not self._is_for(step):
            return None
        self._engaged = True
        assert step.run_state is not None
        depth = int(step.layers.has_weight.sum())
        if step.run_state.restarted_from == "start" and depth > LIMITS.shallow:
            self._stride = self.stride * LIMITS.shallow / depth
        return {"stride": self._stride}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Replace the measured gradients by rescaled ones; a gradient that is not finite is left alone."""
        if not self._engaged or step.is_taken:
            return False
        if self._scale is None:
            if not step.reading.displacement > 0:  # it is not finite, or zero
                return False
            self._begin(step, step.reading.displacement)
        return step.replace(self._rescaled(step))

    def release(self, step: OptimizerStep) -> bool:
        """Go on with SGD's own steps."""
        was_on, self._engaged, self._scale, self.takes_own_steps = self._engaged, False, None, False
        self._forget()
        return was_on

    def _is_for(self, step: OptimizerStep) -> bool:
        run_state = step.run_state
        if run_state is None or run_state.alert is None or run_state.alert.cause in PASSING:
            return False
        if run_state.has_much_to_lose:
            return False
        if step.plan.reach is None or step.layers.sharding is not None:
            return False
        if any(type(module) is nn.RNN for module in run_state.model.modules()):
            return False
        return not any(p.grad is not None and p.grad.is_sparse for p in step.layers.parameters)

    def _begin(self, step: OptimizerStep, displacement: float) -> None:
        """Find the scale; the displacement is that of the gradient as it was measured, at the present rate."""
        entries = float(step.layers.numel.sum())
        self._scale = self._stride * step.reading.norm / (displacement * math.sqrt(entries))
        self._rate = step.learning_rate.effective()[0]
        reach = step.plan.reach
        has_momentum = reach is not None and reach[0] > step.plan.rates[0]
        self._betas = (0.0 if has_momentum else LIMITS.betas[0], LIMITS.betas[1])
        self.takes_own_steps = True
        step.forget_momentum()

    def _forget(self) -> None:
        self._count, self._first, self._second = None, [], []

    @torch.no_grad()
    def _rescaled(self, step: OptimizerStep) -> list[Tensor | None]:
        assert self._scale is not None
        gradients, norm = step.gradients(), step.norm_on_device
        if len(gradients) != len(self._second):  # parameters have come or gone
            self._forget()
            self._first, self._second = [None] * len(gradients), [None] * len(gradients)
        is_finite = torch.isfinite(norm)
        self._count = is_finite.double() + (0 if self._count is None else self._count)
        rate = step.learning_rate.effective()[0]
        length = self._scale * min(1.0, self._rate / rate) if rate > 0 else self._scale
        rescaled: list[Tensor | None] = []
        for place, gradient in enumerate(gradients):
            if gradient is None:
                rescaled.append(None)
                continue
            here = gradient.device  # a model may be spread over several
            entries = gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / step.loss_scale
            direction = self._direction(place, entries, is_finite.to(here))
            value = (direction * length * step.loss_scale).to(gradient.dtype)
            rescaled.append(value.where(is_finite.to(here), gradient))
        return rescaled

    def _direction(self, place: int, entries: Tensor, is_finite: Tensor) -> Tensor:
        """Add a gradient to the moments of its parameter, unless it is not finite; return their quotient."""
        assert self._count is not None
        first, second, betas = self._first[place], self._second[place], self._betas
        if first is None or second is None:
            first, second = torch.zeros_like(entries), torch.zeros_like(entries)
            self._first[place], self._second[place] = first, second
        entries = entries.where(is_finite, torch.zeros_like(entries))
        first.lerp_(entries, (is_finite * (1 - betas[0])).to(entries))
        second.lerp_(entries**2, (is_finite * (1 - betas[1])).to(entries))
        # The farthest that a single outlier can move an entry under Adam, in entries of the usual size.
        farthest = (1 - LIMITS.betas[0]) / math.sqrt(1 - LIMITS.betas[1])
        count = self._count.to(entries.device)
        size = (second / (1 - betas[1] ** count)).sqrt()
        direction = (first / (1 - betas[0] ** count) / size).clamp(-farthest, farthest)
        return direction.nan_to_num(0.0)  # where all is zero

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if not self._engaged else 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, and the moments as tensors."""
        moments = {"count": self._count, "first": list(self._first), "second": list(self._second)}
        return {
            "engaged": self._engaged,
            "stride": self._stride,
            "scale": self._scale,
            "rate": self._rate,
            "betas": list(self._betas),
            **moments,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._engaged, self._stride = state["engaged"], state["stride"]
        self._scale, self._rate = state["scale"], state["rate"]
        self._betas = tuple(state.get("betas", LIMITS.betas))  # versions before 0.2 have none
        self.takes_own_steps = self._scale is not None
        self._count = None if state["count"] is None else state["count"].clone()
        self._first, self._second = [[None if m is None else m.clone() for m in state[k]] for k in ("first", "second")]
