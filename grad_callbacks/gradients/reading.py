"""One reading: the gradient norms of one optimizer at one step, measured in one pass."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grad_callbacks.gradients.layers import Layers
from grad_callbacks.gradients.profile import Profile, decay_per_layer

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reading:
    """What the gradients of one optimizer looked like at one step.

    Attributes:
        step: The step (``trainer.global_step`` at ``on_before_optimizer_step`` under Lightning).
        layers: The layers that were read.
        norms: L2 norm of each parameter's gradient, shape ``(parameters,)``; 0 where there is none.
        present: True for each parameter that had a gradient, shape ``(parameters,)``.
        nonfinite: Number of gradient entries that are NaN or infinite.
        overflow: A loss scaler found an overflow and will skip this step by itself.
        partial: The gradient comes from a short accumulation window, so its scale is not comparable.
        optimizer: Index of the optimizer.
        weight_norms: L2 norm of each layer's parameters as last measured, shape ``(layers,)``; NaN before.
        motion: How far this gradient moves each layer relative to its weights, shape ``(layers,)``; NaN if
            unknown (see :class:`~grad_callbacks.gradients.motion.Motion`).
        clip_at: The norm to which somebody else clips the gradient after this reading, or None.
        displacement: How far this gradient moves all weights together, relative to them; NaN where the
            optimizer's update cannot be foretold from the gradient alone.
    """

    step: int
    layers: Layers
    norms: FloatArray
    present: NDArray[np.bool_]
    nonfinite: int
    overflow: bool = False
    partial: bool = False
    optimizer: int = 0
    weight_norms: FloatArray | None = None
    motion: FloatArray | None = None
    clip_at: float | None = None
    displacement: float = math.nan

    @cached_property
    def norm(self) -> float:
        """The global norm: the root of the summed squares of all parameters' norms."""
        return float(np.sqrt(np.sum(self.norms**2)))

    @cached_property
    def is_finite(self) -> bool:
        """True if every gradient entry is a finite number."""
        return self.nonfinite == 0

    @cached_property
    def layer_norms(self) -> FloatArray:
        """L2 norm of each layer's gradient, shape ``(layers,)``."""
        return np.sqrt(self.layers.sum_over_parameters(self.norms**2))

    @cached_property
    def layer_present(self) -> NDArray[np.bool_]:
        """True for each layer with a gradient."""
        return self.layers.sum_over_parameters(self.present.astype(np.float64)) > 0

    @cached_property
    def layer_rms(self) -> FloatArray:
        """Root mean square of each layer's gradient entries, shape ``(layers,)``; NaN without a gradient."""
        entries = self.layers.sum_over_parameters(np.where(self.present, self.layers.numel, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(entries > 0, self.layer_norms / np.sqrt(entries), np.nan)

    @cached_property
    def profiled(self) -> NDArray[np.bool_]:
        """True for each layer of the profile: it owns a weight and had a gradient.

        Embeddings are left out: most of their rows have no gradient, which says nothing about depth.
        """
        return self.layers.has_weight & self.layer_present & ~self.layers.is_embedding

    @cached_property
    def profile(self) -> Profile:
        """The gradient's root mean square over depth, layers without weights (norms, biases) left out."""
        return self.layer_rms[self.profiled]

    @cached_property
    def error_profile(self) -> Profile:
        """The biases' root mean square over depth: the error itself, without the signal it is multiplied with.

        A flat weight profile can hide a vanishing error behind a vanishing signal; the bias gradient is the
        error alone. A bias whose gradient is a thousandth of its weight's is cancelled by the
        normalisation behind it and tells nothing: it is left out.
        """
        bias = ~self.layers.is_weight & self.present
        entries = self.layers.sum_over_parameters(np.where(bias, self.layers.numel, 0.0))
        squares = self.layers.sum_over_parameters(np.where(bias, self.norms**2, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            rms = np.sqrt(squares / entries)
        return rms[self.profiled & (entries > 0) & (rms > 1e-3 * self.layer_rms)]

    @cached_property
    def decay_per_layer(self) -> float:
        """The factor by which the gradient changes per layer, going backward; NaN if it cannot be fitted."""
        return decay_per_layer(self.profile)


@torch.no_grad()
def measure(
    layers: Layers,
    step: int,
    optimizer: int = 0,
    loss_scale: float = 1.0,
    under_scaler: bool = False,
    partial: bool = False,
) -> Reading | None:
    """Read the gradients of ``layers`` in one pass.

    Norms are accumulated in float32 whatever the gradients' type (float64 stays float64): the norm of
    float16 gradients would overflow at 65504.

    Args:
        layers: The parameters to read.
        step: The step that the reading belongs to.
        optimizer: Index of the optimizer.
        loss_scale: What the gradients are still multiplied with (a fused optimizer under a loss scaler).
        under_scaler: A loss scaler is at work, so a non-finite gradient is an overflow.
        partial: See :class:`Reading`.

    Returns:
        The reading, or None if no parameter has a gradient.
    """
    gradients = {i: _values(p.grad) for i, p in enumerate(layers.parameters) if p.grad is not None}
    if not gradients:
        return None
    norms = np.zeros(len(layers.parameters))
    present = np.zeros(len(layers.parameters), dtype=np.bool_)
    present[list(gradients)] = True
    nonfinite = 0
    for index, norm in _norms(gradients).items():
        if not math.isfinite(norm):
            norm, bad = _exact(gradients[index])
            nonfinite += bad
        norms[index] = norm / loss_scale
    overflow = under_scaler and nonfinite > 0
    return Reading(step, layers, norms, present, nonfinite, overflow, partial, optimizer)


def _values(gradient: Tensor) -> Tensor:
    """The entries that count toward the norm: stored values of a sparse gradient, real pairs of a complex one."""
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def _norms(gradients: dict[int, Tensor]) -> dict[int, float]:
    """L2 norm of each gradient, with one kernel and one copy to the host per device and precision."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for index, gradient in gradients.items():
        accumulate = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        groups[gradient.device, accumulate].append(index)
    norms: dict[int, float] = {}
    for (_, dtype), indices in groups.items():
        # The foreach kernel is private in torch, yet it is what clip_grad_norm_ itself is built on.
        stacked = torch.stack(torch._foreach_norm([gradients[i] for i in indices], 2, dtype=dtype))
        norms.update(zip(indices, stacked.tolist(), strict=True))
    return norms


def _exact(gradient: Tensor) -> tuple[float, int]:
    """Norm in float64 and number of non-finite entries, for a gradient whose float32 norm is not finite.

    A finite gradient can have squares that overflow float32; it is large, not non-finite.
    """
    bad = gradient.numel() - int(torch.isfinite(gradient).sum())
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64)), bad
