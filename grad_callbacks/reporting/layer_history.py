"""The history: every reading's layers, in bounded memory."""

from __future__ import annotations

import math
import weakref
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from grad_callbacks._utils.extras import needs
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.reading import FloatArray, Reading

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerHistoryThresholds(Thresholds):
    """How much a history keeps."""

    rows: int = threshold(
        400_000,
        "beyond it every second step is dropped: about 15 MB",
        unit="rows, one per step and layer",
        source="not measured",
    )
    step_rows: int = threshold(
        10, "what a step takes besides its layers' rows, in rows", unit="rows", source="not measured"
    )
    recent: int = threshold(32, "latest steps that are all kept", unit="steps", source="not measured")
    around: int = threshold(10, "steps before and after an alert that are kept", unit="steps", source="not measured")
    rest: float = threshold(
        0.75,
        "where dropping leaves more than this, what is left belongs to alerts",
        unit="share of the rows before",
        source="not measured",
    )


LIMITS = LayerHistoryThresholds()

_VALUES = ("norm", "rms", "weight_norm", "update_ratio")
_UPDATE_RATIO = _VALUES.index("update_ratio")


class _Step(NamedTuple):
    place: int  # how many readings came before
    step: int
    layers: NDArray[np.int32]  # indices of the layers' names
    numbers: FloatArray  # one row per layer, columns as in _VALUES


class LayerHistory:
    """One row per step and layer, thinned out evenly when they become too many.

    Beyond ``max_rows`` rows every second step is dropped and only every second one is kept from then on, and
    so forth. The latest 32 steps are always there, and the 10 steps before and after each alert stay for good
    (of runs with so many alerts that these alone are too many, every second alert's).
    """

    def __init__(self, max_rows: int = LIMITS.rows) -> None:
        self.max_rows = max_rows
        self._names: dict[str, int] = {}  # every layer seen so far, and its index
        self._depths: list[int] = []
        self._profiled: list[bool] = []  # they own a weight, and are no embedding
        self._steps: list[_Step] = []
        self._marked: list[int] = []  # places of alerts, ascending
        self._seen = 0
        self._rows = 0
        self._stride = 1
        # Weak: a history that outlives the training must not keep the parameters alive.
        self._last_layers: weakref.ref[Layers] | None = None
        self._last_indices = np.zeros(0, dtype=np.int32)
        self._sources: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def is_empty(self) -> bool:
        """True before the first reading."""
        return not self._steps

    @property
    def count(self) -> int:
        """Readings so far, over all optimizers."""
        self._catch_up()
        return self._seen

    @property
    def layers(self) -> int:
        """Layers that were seen so far."""
        return len(self._names)

    def follow(self, catch_up: Callable[[], None]) -> None:
        """Call a method of an object that keeps readings for a while, before any is asked for: it appends them."""
        self._sources = [source for source in self._sources if source() is not None]
        self._sources.append(weakref.WeakMethod(catch_up))

    def unfollow(self, catch_up: Callable[[], None]) -> None:
        """Call a method no more."""
        self._sources = [source for source in self._sources if source() not in (None, catch_up)]

    @property
    def is_shared(self) -> bool:
        """True if several such objects append to it: kept readings would come in another order."""
        return sum(source() is not None for source in self._sources) > 1

    def _catch_up(self) -> None:
        for source in self._sources:
            if (catch_up := source()) is not None:
                catch_up()

    def append(self, reading: Reading) -> int:
        """Add a row for each layer that had a gradient; return the step's place, counted over all optimizers."""
        values = np.empty((len(reading.layers.names), len(_VALUES)))
        values[:, 0], values[:, 1] = reading.layer_norms, reading.layer_rms
        values[:, 2] = math.nan if reading.weight_norms is None else reading.weight_norms
        values[:, _UPDATE_RATIO] = math.nan
        indices = self._indices(reading.layers)
        if not reading.is_complete and not (there := reading.layer_present).all():
            indices, values = indices[there], values[there]
        self._add(reading.step, indices, values)
        return self._seen - 1

    def append_block(self, block: QuietBlock) -> int:
        """Add the rows of readings in a row; return the place of the last."""
        first = block.readings[0]
        values = np.full((len(block), len(first.layers.names), len(_VALUES)), math.nan)
        values[:, :, 0], values[:, :, 1] = block.layer_norms, block.layer_rms
        if first.weight_norms is not None:
            values[:, :, 2] = first.weight_norms
        indices = self._indices(first.layers)
        if not first.is_complete and not (there := first.layer_present).all():
            indices, values = indices[there], values[:, there]
        for reading, mine in zip(block.readings, values, strict=True):
            self._add(reading.step, indices, mine.copy())  # a view would keep the whole block
        return self._seen - 1

    def _add(self, step: int, indices: NDArray[np.int32], values: FloatArray) -> None:
        self._steps.append(_Step(self._seen, step, indices, values))
        self._seen += 1
        self._rows += _rows(self._steps[-1])
        if len(self._steps) > LIMITS.recent and not self._is_kept(self._steps[-LIMITS.recent - 1]):
            self._rows -= _rows(self._steps.pop(-LIMITS.recent - 1))
        if self._rows > self.max_rows and len(self._steps) > 2 * LIMITS.recent:
            self._thin_out()

    def set_update_ratios(self, place: int, ratios: FloatArray) -> None:
        """Fill in the update ratios of a step, if its rows are still there.

        Args:
            place: What :meth:`append` returned for it.
            ratios: For each of the layers that had a gradient.
        """
        for entry in reversed(self._steps):
            if entry.place <= place:
                if entry.place == place:
                    entry.numbers[:, _UPDATE_RATIO] = ratios
                return

    def mark(self) -> None:
        """Keep the latest steps, and those that are to come next, for good: there was an alert."""
        self._marked.append(self._seen - 1)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows with the columns step, layer, depth, norm, rms, weight_norm, update_ratio and profiled."""
        self._catch_up()
        with needs("plots", "a table of the history"):
            import pandas as pd

        if not self._steps:
            return pd.DataFrame(columns=["step", "layer", "depth", *_VALUES, "profiled"])
        layers = np.concatenate([entry.layers for entry in self._steps])
        values = np.concatenate([entry.numbers for entry in self._steps])
        steps = np.repeat([entry.step for entry in self._steps], [len(entry.layers) for entry in self._steps])
        frame = pd.DataFrame({"step": steps, "layer": np.array(list(self._names), dtype=object)[layers]})
        frame["depth"] = np.array(self._depths, dtype=np.int64)[layers]
        frame[list(_VALUES)] = values
        frame["profiled"] = np.array(self._profiled, dtype=np.bool_)[layers]
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Return plain lists and tensors, which a checkpoint loads with ``weights_only=True``."""
        self._catch_up()
        return {
            "names": list(self._names),
            "depths": list(self._depths),
            "profiled": list(self._profiled),
            "places": [entry.place for entry in self._steps],
            "steps": [entry.step for entry in self._steps],
            "counts": [len(entry.layers) for entry in self._steps],
            "layers": torch.from_numpy(_concatenate([entry.layers for entry in self._steps], np.zeros(0, np.int32))),
            "values": torch.from_numpy(
                _concatenate([entry.numbers for entry in self._steps], np.zeros((0, len(_VALUES))))
            ),
            "marked": list(self._marked),
            "seen": self._seen,
            "stride": self._stride,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._names = {name: i for i, name in enumerate(state["names"])}
        self._depths = list(state["depths"])
        self._profiled = list(state.get("profiled", [True] * len(self._depths)))  # an older version did not keep it
        ends = np.cumsum(state["counts"])[:-1].astype(int)
        layers = np.split(state["layers"].numpy().copy(), ends)
        values = np.split(state["values"].numpy().copy(), ends)
        entries = zip(state["places"], state["steps"], layers, values, strict=True) if state["steps"] else ()
        self._steps = [_Step(*entry) for entry in entries]
        self._marked, self._seen, self._stride = list(state["marked"]), state["seen"], state["stride"]
        self._rows = sum(map(_rows, self._steps))
        self._last_layers = None

    def _is_kept(self, entry: _Step) -> bool:
        if entry.place % self._stride == 0:
            return True
        after = bisect_left(self._marked, entry.place - LIMITS.around)
        return after < len(self._marked) and self._marked[after] <= entry.place + LIMITS.around

    def _thin_out(self) -> None:
        while self._rows > self.max_rows // 2 and (self._stride < self._seen or self._marked):
            before = self._rows
            self._stride *= 2
            older, latest = self._steps[: -LIMITS.recent], self._steps[-LIMITS.recent :]
            self._steps = [entry for entry in older if self._is_kept(entry)] + latest
            self._rows = sum(map(_rows, self._steps))
            if self._rows > LIMITS.rest * before:  # what is left belongs to alerts
                self._marked = self._marked[: len(self._marked) // 2 * 2 : 2]

    def _indices(self, layers: Layers) -> NDArray[np.int32]:
        if self._last_layers is None or self._last_layers() is not layers:
            for name, depth, profiled in zip(layers.names, layers.depths, layers.profiled, strict=True):
                if name not in self._names:
                    self._names[name] = len(self._names)
                    self._depths.append(int(depth))
                    self._profiled.append(bool(profiled))
            self._last_layers = weakref.ref(layers)
            self._last_indices = np.array([self._names[name] for name in layers.names], dtype=np.int32)
        return self._last_indices

    def __getstate__(self) -> dict[str, Any]:
        self._catch_up()
        return self.__dict__ | {"_last_layers": None, "_sources": []}


def _rows(entry: _Step) -> int:
    return len(entry.layers) + LIMITS.step_rows


def _concatenate(arrays: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else empty
