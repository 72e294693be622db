"""Raise gradients that are too small beside those of other layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from grad_callbacks._utils.validation import fraction, positive
from grad_callbacks.events import Evidence
from grad_callbacks.measurement import Layers
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.treatment.remedies._support.switched import Switched
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class FloorNorm(Switched):
    """Multiplies the gradients of layers that lag behind, up to ``floor`` times the root mean square of the largest.

    This is what clipping to a range is sometimes said to do and does not: keep gradients from getting too small. A
    layer's gradient is rescaled as a whole, so its direction is kept, and relative to the other layers, so a loss that
    is multiplied with a constant changes nothing. What is zero stays zero, and a gradient is raised ``limit`` times at
    most: far below the others it is mostly rounding. Embeddings and layers without a weight of two dimensions are left
    alone and are no measure.

    A vanished gradient tells little, and tells it of a network whose signal has vanished as well: raised, it has
    repaired none of 7 vanishing runs of the corpus that a fresh initialisation repairs but one of. It is in no preset.
    Adaptive optimizers rescale every entry by themselves; under them it does next to nothing.
    Reference: the idea that each layer's step be set relative to the layer is that of You, Gitman & Ginsburg 2017,
    "Large Batch Training of Convolutional Networks", arXiv 1708.03888, sec. 4.

    Args:
        floor: Least root mean square of a layer's gradient relative to the largest layer's, between 0 and 1.
        limit: The factor that no gradient is raised beyond, above 0.

    Raises:
        ValueError: If an argument is wrong.
    """

    changes_gradients = True

    def __init__(self, floor: float = 0.1, limit: float = 1e4) -> None:
        self.floor, self.limit = fraction("floor", floor), positive("limit", limit)
        super().__init__()

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Raise small gradients from this step on. Can be switched on once; cannot mend a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        self._engaged = True
        return {"floor": self.floor, "limit": self.limit}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Raise what is below the floor."""
        return step.multiply_each(self._factors(step)) if self._engaged and not step.is_taken else False

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
