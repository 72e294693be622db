"""Histograms of the gradients' entries at a few steps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.schedule import SCHEDULE


@dataclass(frozen=True)
class HistogramThresholds(Thresholds):
    """Thresholds of the histograms of gradients."""

    kept: int = threshold(20, "histograms kept of a run", unit="histograms", source="not measured")
    layers: int = threshold(48, "layers in a histogram, evenly spread over depth", unit="layers", source="not measured")
    sample: int = threshold(
        2048, "entries read of each parameter, evenly spread", unit="entries", source="not measured"
    )
    lowest: int = threshold(-12, "lower end of the bins", unit="log10 of an entry's size", source="not measured")
    highest: int = threshold(4, "upper end of the bins", unit="log10 of an entry's size", source="not measured")
    per_decade: int = threshold(4, "bins for each power of ten", unit="bins", source="not measured")

    @property
    def bins(self) -> int:
        """Number of bins, with one below and one above the range."""
        return (self.highest - self.lowest) * self.per_decade + 2


HISTOGRAM = HistogramThresholds()


@dataclass(frozen=True, eq=False)
class Histogram:
    """How large the entries of each layer's gradient were at one step.

    Attributes:
        step: The step.
        layers: Layer names in forward order.
        shares: Share of the entries in each bin, shape ``(layers, bins)``, each row adds up to 1. The bins between the
            first and the last are quarters of a decade from 1e-12 to 1e4. The first holds what is smaller, zeros
            included, the last what is larger or not finite.
    """

    step: int
    layers: tuple[str, ...]
    shares: NDArray[np.float64]


class Histograms:
    """Takes a histogram at intervals: at most 20 are kept, evenly spread over the run however long it gets.

    Each costs a sort of 2048 entries for each of at most 48 layers, on the gradients' own device. The counts stay there
    until the run ends, so that the host never waits for them.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._seen = 0
        self._stride = 2 * SCHEDULE.interval

    def offer(self, layers: Layers, step: int, loss_scale: float | Tensor = 1.0) -> None:
        """Take the gradients as they are now if it is time; not where they are sharded over processes.

        Args:
            layers: Whose gradients.
            step: The step's number.
            loss_scale: Factor that the gradients still contain.
        """
        place, self._seen = self._seen, self._seen + 1
        if place % self._stride or layers.sharding is not None:
            return
        taken = _take(layers, loss_scale)
        if taken is None:
            return
        self._taken.append((step, *taken))
        if len(self._taken) > HISTOGRAM.kept:
            self._taken = self._taken[::2]
            self._stride *= 2

    def to_host(self) -> list[Histogram]:
        """Return them, in order. Waits for the device."""
        return [Histogram(step, names, _shares(counts)) for step, names, counts in self._taken]

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and tensors."""
        taken = [[step, list(names), counts.cpu()] for step, names, counts in self._taken]
        return {"taken": taken, "seen": self._seen, "stride": self._stride}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._taken = [(step, tuple(names), counts) for step, names, counts in state["taken"]]
        self._seen, self._stride = state["seen"], state["stride"]


@torch.no_grad()
def _take(layers: Layers, loss_scale: float | Tensor) -> tuple[tuple[str, ...], Tensor] | None:
    owned: dict[int, list[Tensor]] = {}
    for owner, gradient in zip(layers.owner, layers.gradients(), strict=True):
        if gradient is not None and gradient.numel():
            owned.setdefault(int(owner), []).append(gradient)
    if not owned:
        return None
    present = sorted(owned)
    places = np.unique(np.linspace(0, len(present) - 1, min(len(present), HISTOGRAM.layers)).astype(int))
    chosen = [present[place] for place in places]
    counts = [_counts([_sample(gradient) for gradient in owned[owner]], loss_scale) for owner in chosen]
    device = counts[0].device
    return tuple(layers.names[owner] for owner in chosen), torch.stack([count.to(device) for count in counts])


def _sample(gradient: Tensor) -> Tensor:
    flat = gradient.detach().reshape(-1)
    return flat[:: -(-flat.numel() // HISTOGRAM.sample)].float()


def _counts(samples: list[Tensor], loss_scale: float | Tensor) -> Tensor:
    entries = torch.cat(samples) if len(samples) > 1 else samples[0]
    scale = loss_scale.to(entries.device) if isinstance(loss_scale, Tensor) else loss_scale
    # Sorted rather than counted: that is deterministic on every device, and the host waits for no length.
    ordered = torch.sort((entries.abs() / scale).log10()).values
    edges = torch.linspace(HISTOGRAM.lowest, HISTOGRAM.highest, HISTOGRAM.bins - 1, device=entries.device)
    below = torch.searchsorted(ordered, edges)
    ends = torch.full((1,), ordered.numel(), device=entries.device)
    return torch.cat([below, ends]).diff(prepend=torch.zeros(1, dtype=below.dtype, device=entries.device))


def _shares(counts: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = counts.double().cpu().numpy()
    totals: NDArray[np.float64] = numbers.sum(axis=1, keepdims=True)
    return np.divide(numbers, totals)
