"""Motion: how far steps move the weights, under the optimizer's own scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks.gradients.layers import Layers
from grad_callbacks.gradients.reading import FloatArray, Reading

SAMPLE = 4096  # entries per parameter that are compared before and after a step
EARLY_READINGS = 20  # the first readings are all followed by a measurement of the motion,
INTERVAL = 10  # later ones every tenth: weights change slowly


class Motion:
    """Measures weight norms and update ratios of one optimizer's layers, at intervals.

    The update ratio is the norm of a layer's change in one step over the norm of its parameters. The change
    is compared on at most 4096 evenly spaced entries per parameter, so that no second copy of the weights
    is needed; for larger parameters it is an estimate.

    Attributes:
        weight_norms: L2 norm of each layer's parameters as last measured, shape ``(layers,)``; NaN before.
        update_ratios: Update ratio of each layer as last measured, shape ``(layers,)``; NaN before.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.weight_norms: FloatArray = np.full(len(layers.names), math.nan)
        self.update_ratios: FloatArray = np.full(len(layers.names), math.nan)
        self.readings = 0
        self._before: list[Tensor] | None = None
        # Norm of these weights under torch's default initialisation, U(-1, 1) / sqrt(fan_in): weights that
        # start at or near zero are on their way there, and their relative motion says nothing.
        fan_outs = [p.shape[0] for p, is_weight in zip(layers.parameters, layers.is_weight, strict=True) if is_weight]
        self._usual_norm = math.sqrt(sum(fan_outs) / 3)

    @torch.no_grad()
    def before_step(self) -> None:
        """Measure the weights if it is time, and prepare to measure the step's update."""
        due = self.readings < EARLY_READINGS or self.readings % INTERVAL == 0
        self.readings += 1
        self._before = None
        if due:
            parameters = self.layers.parameters
            squares = np.array([float(torch.linalg.vector_norm(p)) ** 2 for p in parameters])
            self.weight_norms = np.sqrt(self.layers.sum_over_parameters(squares))
            self._before = [_sample(p).clone() for p in parameters]

    @torch.no_grad()
    def after_step(self) -> FloatArray | None:
        """Return the update ratios of the step just taken, or None if it was not to be measured."""
        if self._before is None:
            return None
        moved = np.zeros(len(self._before))
        for i, (before, parameter) in enumerate(zip(self._before, self.layers.parameters, strict=True)):
            after = _sample(parameter)
            if after.numel():
                scale = parameter.numel() / after.numel()
                moved[i] = scale * float(torch.linalg.vector_norm(after - before)) ** 2
        self._before = None
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.sqrt(self.layers.sum_over_parameters(moved)) / self.weight_norms
        self.update_ratios = np.where(np.isfinite(ratios), ratios, math.nan)
        return self.update_ratios

    def of(
        self, reading: Reading, optimizer: torch.optim.Optimizer, rates: Sequence[float]
    ) -> tuple[FloatArray, float]:
        """Say how far the gradient of ``reading`` moves the layers, relative to their weights.

        For SGD that is known in advance: with learning rate r, momentum m and dampening d a gradient g moves
        the weights by r (1-d) / (1-m) g over its life in the momentum buffer (Sutskever et al. 2013, sec. 2).
        Other optimizers rescale the gradient; there the last measured update ratio stands in, less what
        decoupled weight decay contributes, and the whole displacement is unknown.

        Args:
            reading: A finite reading.
            optimizer: The optimizer that will use the gradient.
            rates: The learning rate of each of its parameter groups; NaN where it has none.

        Returns:
            The motion of each layer, shape ``(layers,)``, and the displacement of all weights together, relative
            to their norm or to the norm that a default initialisation would give them, whichever is larger.
        """
        groups = optimizer.param_groups
        if not isinstance(optimizer, torch.optim.SGD) or any(group["momentum"] >= 1 for group in groups):
            decoupled = [rate * group.get("weight_decay", 0.0) for group, rate in zip(groups, rates, strict=True)]
            decay = self.layers.sum_over_parameters(np.array(decoupled)[self.layers.group])
            return np.maximum(self.update_ratios - decay / np.bincount(self.layers.owner), 0.0), math.nan
        reach = [
            rate * (1 - group["dampening"] * bool(group["momentum"])) / (1 - group["momentum"])
            for group, rate in zip(groups, rates, strict=True)
        ]
        clipped = min(1.0, reading.clip_at / reading.norm) if reading.clip_at and reading.norm > 0 else 1.0
        moved = clipped * np.array(reach)[self.layers.group] * reading.norms
        squares = self.layers.sum_over_parameters(moved**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            motion = np.sqrt(squares) / self.weight_norms
        all_weights = max(float(np.sqrt(np.sum(self.weight_norms**2))), self._usual_norm)
        displacement = math.sqrt(squares.sum()) / all_weights if all_weights > 0 else math.nan
        return np.where(np.isfinite(motion), motion, math.nan), displacement

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        return {
            "weight_norms": self.weight_norms.tolist(),
            "update_ratios": self.update_ratios.tolist(),
            "readings": self.readings,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.weight_norms = np.array(state["weight_norms"])
        self.update_ratios = np.array(state["update_ratios"])
        self.readings = state["readings"]


def _sample(parameter: Tensor) -> Tensor:
    values = parameter.detach()
    values = torch.view_as_real(values) if values.is_complex() else values
    stride = max(1, values.numel() // SAMPLE)
    return values.reshape(-1)[::stride].float()
