"""Clip the gradient of each unit by the norm of its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import Layers
from grad_callbacks.measurement.norms import l2_norms
from grad_callbacks.measurement.sharding import is_first_process, sum_over_processes
from grad_callbacks.treatment.remedies._support.switched import Switched
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep

log = logging.getLogger("grad_callbacks")


@dataclass(frozen=True)
class AGCThresholds(Thresholds):
    """The numbers of :class:`AGC`."""

    ratio: float = threshold(
        0.01, "largest norm of a unit's gradient", unit="x norm of its weights", source="Brock et al. 2021, sec. 4"
    )
    least: float = threshold(
        1e-3, "norm that a unit's weights are at least counted with", unit="1", source="Brock et al. 2021, sec. 4"
    )


LIMITS = AGCThresholds()


class AGC(Switched):
    """Rescales the gradient of each output unit so that its norm is at most ``ratio`` times that of its weights.

    A unit is an index of a weight's first dimension; a bias or another vector is one unit. Units with weights near zero
    count as if their norm was ``least``, or they would never leave it. The last layer with a weight, the head, is left
    alone, as published; so are sparse gradients, whose rows are not the weight's.

    It needs whole rows on one process. FSDP2 and DDP have them; the flat shards of FSDP1 and weights that tensor
    parallelism shards along their inputs do not: there it logs a warning once and is never switched on. Sharded vectors
    cost a collective a step.
    Reference: Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", sec. 4
    (eq. 3; they use 0.01 and 1e-3, with SGD and Nesterov momentum. Under Adam, which rescales the gradient itself, a
    bound that is always reached changes little.)

    Args:
        ratio: Largest norm of a unit's gradient relative to its weights' (lambda in the paper).
        least: Norm that a unit's weights are at least counted with (epsilon).

    Raises:
        ValueError: If an argument is not above 0.
    """

    clips = True
    bounds_steps = True
    changes_gradients = True

    def __init__(self, ratio: float = LIMITS.ratio, least: float = LIMITS.least) -> None:
        self.ratio, self.least = positive("ratio", ratio), positive("least", least)
        super().__init__()
        self._has_warned = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Clip from this step on. Once only, and not for a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        if not _has_whole_rows(step.layers):
            if not self._has_warned and is_first_process():
                log.warning("AGC is left out: it needs whole rows, and these weights are sharded across rows (FSDP1?)")
            self._has_warned = True
            return None
        self._engaged = True
        return {"ratio": self.ratio, "norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip the units that exceed their bound."""
        return step.multiply_each(self._factors(step)) if self._engaged and not step.is_taken else False

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return 0 if self._engaged else LEEWAY.any

    @torch.no_grad()
    def _factors(self, step: OptimizerStep) -> list[Tensor | None]:
        layers, gradients, weights = step.layers, step.gradients(), step.layers.weights()
        head = int(np.nonzero(layers.has_weight)[0][-1]) if layers.has_weight.any() else -1
        vectors = _vector_norms(layers, weights, gradients)
        factors: list[Tensor | None] = []
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if gradient is None or gradient.shape != weight.shape or layers.owner[index] == head:
                factors.append(None)
                continue
            own, of_gradient = vectors.get(index) or (_row_norms(weight), _row_norms(gradient))
            bound = self.ratio * torch.clamp(own, min=self.least) * step.loss_scale
            factor = torch.clamp(bound / of_gradient, max=1.0)  # a gradient of zero: of infinity
            factors.append(factor.where(torch.isfinite(of_gradient), torch.ones_like(factor)))
        return factors


def _row_norms(tensor: Tensor) -> Tensor:
    """Norm over all dimensions but the first, which are kept."""
    precision = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    others = tuple(range(1, tensor.dim()))
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=others, keepdim=True, dtype=precision)
    return norms


def _vector_norms(
    layers: Layers, weights: list[Tensor], gradients: list[Tensor | None]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Norms of parameters with one dimension and of their gradients, by index, the parts of all processes together."""
    chosen = [index for index, is_weight in enumerate(layers.is_weight) if not is_weight]
    if not chosen:
        return {}
    own = l2_norms([weights[index] for index in chosen], layers.device) ** 2
    of_gradients = l2_norms([gradients[index] for index in chosen], layers.device) ** 2
    if layers.sharding is not None:
        both = torch.stack([own * layers.shares[chosen], of_gradients * layers.gradient_shares()[chosen]])
        own, of_gradients = sum_over_processes(both).unbind()
    pairs = zip(own.sqrt().unbind(), of_gradients.sqrt().unbind(), strict=True)
    return dict(zip(chosen, pairs, strict=True))


def _has_whole_rows(layers: Layers) -> bool:
    """True if each row of each weight lies on one process, which all processes answer alike."""
    if layers.sharding is None:
        return True
    for parameter, shape in zip(layers.parameters, layers.shapes, strict=True):
        placements = getattr(parameter, "placements", None)
        if placements is None and parameter.dim() != len(shape):
            return False  # a flat shard
        if any(getattr(placement, "dim", 0) != 0 for placement in placements or ()):
            return False
    # Of a model that FSDP has flattened into one vector a unit, nothing but vectors is left.
    return bool(layers.is_weight.any())
