"""Samples of the weights, so that a step's change is seen without a second copy of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import l2_norms

SAMPLE = 512  # entries per parameter: enough to know a norm within a few percent


class Samples:
    """Takes some 512 evenly spaced entries of each parameter, up to 1023 where they do not divide evenly."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._views: list[Tensor] = []
        self._scales = torch.zeros(0)
        self._pointers: list[int] = []

    def take(self) -> Tensor:
        """Return a copy of all samples, one behind the other, in float32 (or float64 for such parameters)."""
        if self._layers.sharding is not None or self._pointers != [p.data_ptr() for p in self._layers.parameters]:
            self._look_again()
        home = self._layers.home
        taken = torch.cat([view.to(home, non_blocking=home.type == "cuda") for view in self._views])
        return taken if taken.dtype == torch.float64 else taken.float()

    def squared_distance(self, before: Tensor) -> Tensor:
        """Estimate how far each parameter's local part has moved.

        Args:
            before: What :meth:`take` returned.

        Returns:
            Squared L2 norms of the change, float64, shape ``(parameters,)``.
        """
        change = torch.split(self.take() - before, [view.numel() for view in self._views])
        return l2_norms(change, self._layers.home) ** 2 * self._scales

    def _look_again(self) -> None:
        """Find the samples in memory: views are kept, since making them costs more than copying them."""
        parameters = self._layers.parameters
        weights = [weight.detach() for weight in self._layers.weights()]
        flats = [_flat(weight) for weight in weights]
        self._views = [flat[:: max(1, flat.numel() // SAMPLE)] for flat in flats]
        scales = [flat.numel() / max(1, view.numel()) for flat, view in zip(flats, self._views, strict=True)]
        self._scales = to_device(scales, self._layers.home)
        is_view = all(flat.data_ptr() == weight.data_ptr() for flat, weight in zip(flats, weights, strict=True))
        self._pointers = [parameter.data_ptr() for parameter in parameters] if is_view else []


def _flat(tensor: Tensor) -> Tensor:
    """All entries in the order of memory: a view for dense tensors of any layout, channels-last included."""
    by_stride = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.permute(by_stride).reshape(-1)
