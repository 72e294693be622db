"""How far steps move the weights, under the optimizer's own scaling."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import l2_norms
from grad_callbacks.measurement.reading import FloatArray
from grad_callbacks.measurement.schedule import SCHEDULE
from grad_callbacks.measurement.weight_samples import Samples


@dataclass(frozen=True)
class UpdateRatioThresholds(Thresholds):
    """The number of the measurement of update ratios."""

    uniform_precision: int = threshold(
        3,
        "one over fan_in times the variance of weights as torch initialises them",
        unit="1",
        source="torch.nn.Linear: U(-1, 1) / sqrt(fan_in), the variance of U(-1, 1) is 1/3",
    )


UPDATE_RATIO = UpdateRatioThresholds()


@dataclass(frozen=True)
class StepPlan:
    """How an optimizer turns a gradient into a step, as far as it is known before the step.

    Attributes:
        rates: Learning rate of each parameter group; NaN where it has none.
        reach: How far a gradient of norm 1 moves each group's weights in total; None for adaptive optimizers.
        decay: By what share decoupled weight decay shrinks each group's weights in a step.
        slowness: Decay of the squared gradients' mean in RMSprop, which begins at zero and is not corrected for that:
            step ``t`` is ``(1 - slowness**t)**-0.5`` times as long as with the correction. 0 for other optimizers.
        squares_decay: Decay of the mean of squared gradients that steps are divided by the root of (Adam's second beta,
            RMSprop's alpha); NaN for optimizers that keep none, and before their first step.
    """

    rates: tuple[float, ...]
    reach: tuple[float, ...] | None
    decay: tuple[float, ...]
    slowness: float = 0.0
    squares_decay: float = math.nan

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> StepPlan:
        """Read the plan off the parameter groups, with the learning rates that the step is taken with."""
        groups = optimizer.param_groups
        decay = tuple(rate * group.get("weight_decay", 0.0) for group, rate in zip(groups, rates, strict=True))
        if not isinstance(optimizer, torch.optim.SGD) or any(group["momentum"] >= 1 for group in groups):
            slowness = groups[0]["alpha"] if isinstance(optimizer, torch.optim.RMSprop) else 0.0
            return cls(tuple(rates), None, decay, slowness, _squares_decay(optimizer))
        reach = tuple(
            rate * (1 - group["dampening"] * bool(group["momentum"])) / (1 - group["momentum"])
            for group, rate in zip(groups, rates, strict=True)
        )
        return cls(tuple(rates), reach, decay)

    def is_like(self, other: StepPlan) -> bool:
        """True if the two differ in the rates alone, or in what follows from them."""
        mine, others = (self.squares_decay, self.slowness), (other.squares_decay, other.slowness)
        is_same = all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(mine, others, strict=True))
        return is_same and (self.reach is None) == (other.reach is None)

    @property
    def decays(self) -> bool:
        """True if weight decay shrinks any weights."""
        return any(self.decay)


def _squares_decay(optimizer: torch.optim.Optimizer) -> float:
    """Read it off the state: a class may have ``betas`` and keep no squares (Lion)."""
    state = next(iter(optimizer.state.values()), None)
    if not isinstance(state, Mapping):
        return math.nan
    group = optimizer.param_groups[0]
    if "exp_avg_sq" in state and len(group.get("betas", ())) > 1:
        return float(group["betas"][1])
    return float(group["alpha"]) if "square_avg" in state and "alpha" in group else math.nan


class UpdateRatios:
    """Measures weight norms and update ratios of one optimizer's layers, at intervals.

    The update ratio is the norm of a layer's change in one step over the norm of its parameters. The change
    is compared on some 512 evenly spaced entries per parameter, so that no second copy of the weights
    is needed; for larger parameters it is an estimate.

    Attributes:
        weight_norms: L2 norm of each layer's parameters as last measured, shape ``(layers,)``; NaN before.
        by_layer: Update ratio of each layer as last measured, shape ``(layers,)``; NaN before.
        is_wanted: Measure the next step even if it is not its turn.
        moved: How far the step last measured moved all weights together, relative to them; NaN before.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.weight_norms: FloatArray = np.full(len(layers.names), math.nan)
        self.by_layer: FloatArray = np.full(len(layers.names), math.nan)
        self.moved = math.nan
        self.is_wanted = False
        self.readings = 0
        self._before: Tensor | None = None  # samples of the weights, from before a step
        self._moved: Tensor | None = None  # squared change of each parameter, still on the device
        self._is_void = False  # the last step was skipped, or was not finite
        self._samples = Samples(layers)
        # Norm of these weights under torch's default initialisation, U(-1, 1) / sqrt(fan_in): weights that
        # start at or near zero grow to about this size, and until then their relative change says nothing.
        fan_outs = [shape[0] for shape in layers.shapes if len(shape) >= 2]
        self._usual_norm = math.sqrt(sum(fan_outs) / UPDATE_RATIO.uniform_precision)
        self._take_size()

    def before_step(self) -> dict[str, Tensor]:
        """Measure the weights if it is time, and prepare to measure the step's update.

        Returns:
            Sums of squares over each parameter's local part, shape ``(parameters,)``, on the device: ``"moved"``,
            the change in the last step that was compared, and ``"weights"``, each if there is one. Pass
            them on to :meth:`arrive`.
        """
        due = self.until_due == 0
        sums = self.collect()
        self.readings += 1
        self._before = None
        return sums | self.weights_now() if due else sums

    @torch.no_grad()
    def weights_now(self) -> dict[str, Tensor]:
        """Measure the weights, and prepare to measure the step's update, whether it is time or not."""
        self._before = self._samples.take()
        return {"weights": l2_norms(self.layers.weights(), self.layers.device) ** 2}

    def skip_step(self) -> None:
        """Do not measure the step's update."""
        self._before = None

    @property
    def until_due(self) -> int:
        """How many readings come before one at which weights are measured."""
        if self.readings < SCHEDULE.updates or self._is_void or self.is_wanted:
            return 0
        return -self.readings % SCHEDULE.interval

    def collect(self) -> dict[str, Tensor]:
        """Return the change in the last step that was compared, if it has not been collected yet."""
        moved, self._moved = self._moved, None
        is_void, self._is_void = self._is_void, False
        return {} if moved is None or is_void else {"moved": moved}

    def after_step(self) -> None:
        """Compare the weights with those before the step, if it is one to be compared."""
        if self._before is not None:
            with torch.no_grad():
                self._moved = self._samples.squared_distance(self._before)
            self._before = None

    def void_step(self) -> None:
        """Leave out the step before the next reading: it was skipped or not finite."""
        self._before = None
        self._is_void = True

    def reset(self) -> None:
        """Forget how far earlier steps have moved the weights, after the weights were replaced."""
        self.by_layer = np.full(len(self.layers.names), math.nan)
        self.moved = math.nan

    def arrive(self, sums: Mapping[str, FloatArray]) -> None:
        """Take in what :meth:`before_step` or :meth:`collect` returned, summed over all processes."""
        if "moved" in sums:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = np.sqrt(self.layers.sum_over_parameters(sums["moved"])) / self.weight_norms
            self.by_layer = np.where(np.isfinite(ratios), ratios, math.nan)
            self.moved = self._relative(float(sums["moved"].sum()))
        if "weights" in sums:
            self.weight_norms = np.sqrt(self.layers.sum_over_parameters(sums["weights"]))
            self._take_size()

    def as_now(self) -> UpdateRatios:
        """A copy that predicts later what can be predicted now; it measures nothing."""
        made = copy.copy(self)
        made._before = made._moved = None
        return made

    def predict(self, norms: FloatArray, clip_at: float | None, plan: StepPlan) -> tuple[FloatArray, float]:
        """Predict how far a gradient moves the layers, relative to their weights.

        For SGD that is known in advance: with learning rate r, momentum m and dampening d a gradient g moves
        the weights by r (1-d) / (1-m) g over its life in the momentum buffer (Sutskever et al. 2013, sec. 2).
        Other optimizers rescale the gradient; there the last measured update ratio is returned, less what
        decoupled weight decay contributes, and the displacement is unknown.

        Args:
            norms: Finite norm of each parameter's gradient, shape ``(parameters,)``.
            clip_at: Global norm to which it is clipped afterwards, e.g. by the Trainer; None if it is not.
            plan: How the optimizer will use the gradient.

        Returns:
            The relative change of each layer, shape ``(layers,)``, and that of all weights together, relative to
            their norm or to the norm that a default initialisation would give them, whichever is larger.
        """
        if plan.reach is None:
            if not plan.decays:
                return self.by_layer, math.nan
            decay = self.layers.sum_over_parameters(np.array(plan.decay)[self.layers.group])
            return np.maximum(self.by_layer - decay / np.bincount(self.layers.owner), 0.0), math.nan
        norm = math.sqrt(float(norms @ norms)) if clip_at else 0.0
        clipped = min(1.0, clip_at / norm) if clip_at and norm > 0 else 1.0
        moved = clipped * np.array(plan.reach)[self.layers.group] * norms
        squares = self.layers.sum_over_parameters(moved**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            motion = np.sqrt(squares) / self.weight_norms
        return np.where(np.isfinite(motion), motion, math.nan), self._relative(float(squares.sum()))

    def displacements(self, norms: FloatArray, clip_at: float | None, plans: Sequence[StepPlan]) -> list[float]:
        """Predict how far gradients move all weights together, for several at once (see :meth:`predict`).

        Args:
            norms: Finite norm of each parameter's gradient, shape ``(gradients, parameters)``.
            clip_at: As in :meth:`predict`.
            plans: How the optimizer uses each.
        """
        if plans[0].reach is None:
            return [math.nan] * len(plans)
        reach = np.array([plan.reach for plan in plans])[:, self.layers.group]
        if clip_at:
            with np.errstate(divide="ignore"):
                reach *= np.minimum(1.0, clip_at / np.sqrt((norms**2).sum(axis=1, keepdims=True)))
        squares = self.layers.sums_over_parameters((reach * norms) ** 2)
        return [self._relative(squared) for squared in squares.sum(axis=1).tolist()]

    def _relative(self, squared: float) -> float:
        """The root of a squared change, relative to the norm of all weights or to their usual norm if that is more."""
        return math.sqrt(squared) / self._size if self._size > 0 else math.nan

    def _take_size(self) -> None:
        self._size = max(float(np.sqrt(np.sum(self.weight_norms**2))), self._usual_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "weight_norms": self.weight_norms.tolist(),
            "update_ratios": self.by_layer.tolist(),
            "moved": self.moved,
            "is_wanted": self.is_wanted,
            "readings": self.readings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.weight_norms = np.array(state["weight_norms"])
        self._take_size()
        self.by_layer = np.array(state["update_ratios"])
        self.moved, self.readings = state["moved"], state["readings"]
        self.is_wanted = state["is_wanted"]
