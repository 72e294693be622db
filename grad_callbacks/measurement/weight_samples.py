"""Samples of the weights, to measure a step's change without a second copy of the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import l2_norms


@dataclass(frozen=True)
class SamplesThresholds(Thresholds):
    """Thresholds of the samples of weights."""

    entries: int = threshold(
        512,
        "entries compared of each parameter, evenly spaced",
        unit="entries",
        source="the norm of a normal distribution's sample of n is within 1 / sqrt(2 n) = 3% (standard error)",
    )


LIMITS = SamplesThresholds()


class Samples:
    """Takes some 512 evenly spaced entries of each parameter, up to 1023 where they do not divide evenly."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._views: list[Tensor] = []
        self._scales = torch.zeros(0)
        self._pointers: list[int] = []
        self._are_together = False  # the views are all where numbers are gathered

    def take(self) -> Tensor:
        """Return a copy of all samples, in one vector, in float32 (or float64 for such parameters)."""
        if self._layers.sharding is not None or self._pointers != [p.data_ptr() for p in self._layers.parameters]:
            self._find_views()
        device, views = self._layers.device, self._views
        if not self._are_together:
            views = [view.to(device, non_blocking=device.type == "cuda") for view in views]
        taken = torch.cat(views)
        return taken if taken.dtype == torch.float64 else taken.float()

    def squared_distance(self, before: Tensor) -> Tensor:
        """Estimate how far each parameter's local part has moved.

        Args:
            before: What :meth:`take` returned.

        Returns:
            Squared L2 norms of the change, float64, shape ``(parameters,)``.
        """
        change = torch.split(self.take() - before, [view.numel() for view in self._views])
        return l2_norms(change, self._layers.device) ** 2 * self._scales

    def _find_views(self) -> None:
        """Make views of the samples and keep them: making them costs more than copying them."""
        parameters = self._layers.parameters
        weights = [weight.detach() for weight in self._layers.weights()]
        flats = [_flat(weight) for weight in weights]
        self._views = [flat[:: max(1, flat.numel() // LIMITS.entries)] for flat in flats]
        self._are_together = all(view.device == self._layers.device for view in self._views)
        scales = [flat.numel() / max(1, view.numel()) for flat, view in zip(flats, self._views, strict=True)]
        self._scales = to_device(scales, self._layers.device)
        is_view = all(flat.data_ptr() == weight.data_ptr() for flat, weight in zip(flats, weights, strict=True))
        self._pointers = [parameter.data_ptr() for parameter in parameters] if is_view else []


def _flat(tensor: Tensor) -> Tensor:
    """All entries in the order of memory: a view for dense tensors of any layout, channels-last included."""
    by_stride = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.permute(by_stride).reshape(-1)
