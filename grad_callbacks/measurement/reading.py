"""A reading: what the gradients of one optimizer looked like at one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from grad_callbacks.measurement.depth_profile import Profile, decay_per_layer, early_to_late
from grad_callbacks.measurement.layers import Layers

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reading:
    """What the gradients of one optimizer looked like at one step.

    Attributes:
        step: The step (``trainer.global_step`` at ``on_before_optimizer_step`` under Lightning).
        layers: The layers that were read.
        norms: L2 norm of each parameter's gradient, shape ``(parameters,)``; 0 where there is none.
        present: True for each parameter that had a gradient, shape ``(parameters,)``.
        overflow: A loss scaler found an overflow and will skip this step by itself.
        fill: Share of the accumulation window's batches that were seen: below 1 the gradient is that much too small.
        optimizer: Index of the optimizer.
        weight_norms: L2 norm of each layer's parameters as last measured, shape ``(layers,)``; NaN before.
        motion: How far this gradient moves each layer relative to its weights, shape ``(layers,)``; NaN if
            unknown (see :class:`~grad_callbacks.measurement.update_ratio.UpdateRatios`).
        clip_at: The norm to which the gradient is clipped after this reading, e.g. by the Trainer; or None.
        displacement: How far this gradient moves all weights together, relative to them; NaN where the
            optimizer's update cannot be predicted from the gradient alone.
        moved: How far the step last measured has moved all weights together, relative to them; NaN before there is one.
        squares_decay: Decay of the mean of squared gradients that the optimizer divides its steps by the root of, as
            Adam's second beta; NaN if it keeps none.
        loss: The training loss of the step, averaged over processes; NaN if it is unknown.
        has_loss: The loss is known, so a NaN is the loss itself.
        through_time: Gradient of a recurrent layer's input at its early time steps over that at the late ones; NaN
            where it was not measured (see :class:`~grad_callbacks.measurement.recurrence.Recurrence`).
        recurrence: Powers of ten by which the weights of plain recurrent layers would multiply an error over a whole
            sequence if their states were small; NaN except in the first reading.
        attention_score: The largest score before a softmax of attention, as a size; NaN where it was not measured (see
            :class:`~grad_callbacks.measurement.attention.Attention`).
        attention_entropy: Mean entropy of that softmax, as a share of that of equal weights; the lowest of several.
        signal: Root mean square of each layer's output as last measured, shape ``(layers,)``; NaN for a layer that is
            not called as a module. None before (see :class:`~grad_callbacks.measurement.signal.Signal`).
        spread: The share of :attr:`signal` that differs over the examples of the batch, between 0 and 1; below 1e-3 its
            digits are lost.
        error: L2 norm of the gradient with respect to each layer's output, over the whole batch.
    """

    step: int
    layers: Layers
    norms: FloatArray
    present: NDArray[np.bool_]
    overflow: bool = False
    fill: float = 1.0
    optimizer: int = 0
    weight_norms: FloatArray | None = None
    motion: FloatArray | None = None
    clip_at: float | None = None
    displacement: float = math.nan
    moved: float = math.nan
    squares_decay: float = math.nan
    loss: float = math.nan
    has_loss: bool = False
    through_time: float = math.nan
    recurrence: float = math.nan
    attention_score: float = math.nan
    attention_entropy: float = math.nan
    signal: FloatArray | None = None
    spread: FloatArray | None = None
    error: FloatArray | None = None

    @cached_property
    def norm(self) -> float:
        """The global norm: the root of the summed squares of all parameters' norms."""
        return math.sqrt(np.add.reduce(self._squares))

    @cached_property
    def comparable_norm(self) -> float:
        """The global norm as it would have been over a whole accumulation window."""
        return self.norm / self.fill

    @cached_property
    def nonfinite(self) -> int:
        """Number of parameters whose gradient has an entry that is NaN or infinite."""
        return 0 if math.isfinite(self.norm) else int(np.sum(~np.isfinite(self.norms)))

    @cached_property
    def is_finite(self) -> bool:
        """True if every gradient entry is a finite number."""
        return self.nonfinite == 0

    @cached_property
    def is_complete(self) -> bool:
        """True if every parameter had a gradient."""
        return bool(np.logical_and.reduce(self.present))

    @cached_property
    def _squares(self) -> FloatArray:
        return self.norms**2

    @cached_property
    def layer_norms(self) -> FloatArray:
        """L2 norm of each layer's gradient, shape ``(layers,)``."""
        return np.sqrt(self.layers.sum_over_parameters(self._squares))

    @cached_property
    def layer_present(self) -> NDArray[np.bool_]:
        """True for each layer with a gradient."""
        if self.is_complete:
            return self.layers.everywhere
        return self.layers.sum_over_parameters(self.present.astype(np.float64)) > 0

    @cached_property
    def layer_rms(self) -> FloatArray:
        """Root mean square of each layer's gradient entries, shape ``(layers,)``; NaN without a gradient."""
        if self.is_complete and self.layers.root_entries is not None:
            return self.layer_norms / self.layers.root_entries
        entries = self.layers.sum_over_parameters(np.where(self.present, self.layers.numel, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(entries > 0, self.layer_norms / np.sqrt(entries), np.nan)

    @cached_property
    def profiled(self) -> NDArray[np.bool_]:
        """True for each layer of the profile: it owns a weight and had a gradient.

        Embeddings are left out: most of their rows have no gradient, which says nothing about depth.
        """
        return self.layers.profiled if self.is_complete else self.layers.profiled & self.layer_present

    @cached_property
    def profile(self) -> Profile:
        """The gradient's root mean square over depth, layers without weights (norms, biases) left out."""
        return self.layer_rms[self.profiled]

    @cached_property
    def error_profile(self) -> Profile:
        """The norm of the error over depth: of the gradient with respect to each layer's output.

        A flat profile of the weights can hide a vanishing error behind a vanishing signal. Empty where no output was
        measured.
        """
        if self.error is None:
            return np.empty(0)
        return self.error[self.profiled & np.isfinite(self.error)]

    @cached_property
    def early_to_late(self) -> float:
        """The gradient's size in the early layers relative to the late ones'; NaN if there are too few."""
        return early_to_late(self.profile)

    @cached_property
    def error_early_to_late(self) -> float:
        """The same for the error."""
        return early_to_late(self.error_profile)

    @cached_property
    def decay_per_layer(self) -> float:
        """The factor by which the gradient changes per layer, going backward; NaN if it cannot be fitted."""
        return decay_per_layer(self.profile)
