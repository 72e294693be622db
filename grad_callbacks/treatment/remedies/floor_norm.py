"""Raise gradients that are too small relative to those of other layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import fraction, positive
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import Layers
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.treatment.remedies._support.switched import Switched
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class FloorNormThresholds(Thresholds):
    """The numbers of :class:`FloorNorm`."""

    floor: float = threshold(
        0.1, "least root mean square of a layer's gradient", unit="x the largest layer's", source="not measured"
    )
    limit: float = threshold(
        1e4,
        "largest factor on a gradient: far below the others it is mostly rounding",
        unit="1",
        source="not measured",
    )


LIMITS = FloorNormThresholds()


class FloorNorm(Switched):
    """Multiplies gradients of layers that are too small, up to ``floor`` times the root mean square of the largest.

    Clipping to a range is sometimes said to keep gradients from getting too small, which it does not; this remedy does.
    A layer's gradient is rescaled as a whole, so its direction is kept, and relative to the other layers, so a loss
    that is multiplied with a constant changes nothing. Zero stays zero, and a gradient is raised ``limit`` times at
    most: far below the others it is mostly rounding. Embeddings and layers without a weight of two dimensions are left
    alone, and are not compared with.

    A vanished gradient carries little information, about a network whose signal has vanished as well: raised, it has
    repaired none of 7 vanishing runs of the corpus; a fresh initialisation repairs 6 of them. It is in no preset.
    Adaptive optimizers rescale every entry by themselves; under them it does next to nothing.
    Reference: the idea that each layer's step be set relative to the layer is that of You, Gitman & Ginsburg 2017,
    "Large Batch Training of Convolutional Networks", arXiv 1708.03888, sec. 4.

    Args:
        floor: Least root mean square of a layer's gradient relative to the largest layer's, between 0 and 1.
        limit: Largest factor on a gradient, above 0.

    Raises:
        ValueError: If an argument is wrong.
    """

    changes_gradients = True

    def __init__(self, floor: float = LIMITS.floor, limit: float = LIMITS.limit) -> None:
        self.floor, self.limit = fraction("floor", floor), positive("limit", limit)
        super().__init__()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Raise small gradients from this step on. Once only, and not for a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        self._engaged = True
        return {"floor": self.floor, "limit": self.limit}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Raise gradients that are below the floor."""
        return step.multiply_each(self._factors(step)) if self._engaged and not step.is_taken else False

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return 0 if self._engaged else LEEWAY.any

    @torch.no_grad()
    def _factors(self, step: OptimizerStep) -> list[Tensor | None]:
        layers = step.layers
        rms = _layer_rms(layers, step.norms_on_device)
        factors = torch.clamp(self.floor * rms.max() / rms, min=1.0, max=self.limit)
        factors = factors.where((rms > 0) & torch.isfinite(rms.max()), torch.ones_like(factors))
        each = factors.unbind()
        counts = layers.has_weight & ~layers.is_embedding
        return [each[owner] if counts[owner] else None for owner in layers.owner]


def _layer_rms(layers: Layers, norms: Tensor) -> Tensor:
    """Root mean square of each layer's gradient, shape ``(layers,)``; 0 for layers that do not count."""
    counts = layers.has_weight & ~layers.is_embedding
    entries = layers.sum_over_parameters(layers.numel)
    shares = [float(counted) / max(count, 1.0) for counted, count in zip(counts, entries, strict=True)]
    sizes = np.bincount(layers.owner, minlength=len(layers.names)).tolist()  # parameters lie layer by layer
    squares = torch.stack([part.sum() for part in torch.split(norms**2, sizes)])
    return (squares * to_device(shares, norms.device)).sqrt()
