"""Readings, made again from the tables of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grad_callbacks.lint.export import Export
from grad_callbacks.measurement import Layers, Reading
from grad_callbacks.measurement.reading import FloatArray
from grad_callbacks.reporting.step_series import FOR_RULES

if TYPE_CHECKING:
    import pandas as pd

_NORMALISED = ("norm", "bn")


def readings_of(export: Export) -> Iterator[Reading]:
    """Make each reading again, in order; each layer has one parameter, with the layer's norm.

    Not in the tables are the signal and the error at the layers' outputs.
    """
    history, rows = export.history, _rows(export.steps)
    layers = _Layers(history)
    has_loss = any(math.isfinite(row.get("loss", math.nan)) for row in rows.values())
    step = history["step"].to_numpy()
    begins = np.flatnonzero(np.r_[True, step[1:] != step[:-1]])
    for begin, end in zip(begins, [*begins[1:], len(history)], strict=True):
        number = int(step[begin])
        yield layers.reading(history.iloc[begin:end], number, rows.get(number, {}), has_loss)


class _Layers:
    """The layers of a run, and what was last known of them."""

    def __init__(self, history: pd.DataFrame) -> None:
        first = history.drop_duplicates("layer").sort_values("depth") if "depth" in history else None
        first = history.drop_duplicates("layer") if first is None else first
        names = [str(name) for name in first["layer"]]
        profiled = first["profiled"].to_numpy(dtype=bool)
        entries = _entries(history).reindex(first["layer"]).fillna(1).to_numpy(dtype=np.int64)
        shapes = [
            torch.Size((int(count), 1)) if is_weight else torch.Size((int(count),))
            for count, is_weight in zip(entries, profiled, strict=True)
        ]
        self._place = {name: place for place, name in enumerate(first["layer"])}
        self.layers = Layers(
            names=tuple(names),
            depths=np.arange(len(names), dtype=np.int64),
            parameters=tuple(torch.empty(shape, device="meta") for shape in shapes),  # a shape and no memory
            shapes=tuple(shapes),
            owner=np.arange(len(names), dtype=np.int64),
            group=np.zeros(len(names), dtype=np.int64),
            is_embedding=np.zeros(len(names), dtype=np.bool_),
            are_normalised=any(part in name.lower() for name in names for part in _NORMALISED),
        )
        self._weight_norms = np.full(len(names), math.nan)
        self._motion = np.full(len(names), math.nan)

    def reading(self, rows: pd.DataFrame, step: int, known: dict[str, float], has_loss: bool) -> Reading:
        places = rows["layer"].map(self._place).to_numpy(dtype=np.int64)
        count = len(self.layers.names)
        norms, present = np.zeros(count), np.zeros(count, dtype=np.bool_)
        norms[places], present[places] = rows["norm"].to_numpy(dtype=np.float64), True
        motion = self._motion.copy()  # of the step before: this one's is measured once it is taken
        displacement = known.get("displacement", math.nan)
        self._note(self._weight_norms, places, rows, "weight_norm")
        self._note(self._motion, places, rows, "update_ratio")
        if math.isfinite(displacement):
            motion = self._motion.copy()  # it follows from the gradient
        asked: dict[str, Any] = {name: known[name] for name in FOR_RULES if name in known}
        asked["overflow"] = asked.get("overflow", 0.0) == 1.0
        if math.isnan(asked.get("fill", math.nan)):
            asked["fill"] = 1.0
        if math.isnan(asked.get("clip_at", math.nan)):
            asked["clip_at"] = None
        if math.isnan(asked.get("moved", math.nan)):
            asked["moved"] = _moved(motion, self._weight_norms)
        return Reading(
            step=step,
            layers=self.layers,
            norms=norms,
            present=present,
            optimizer=int(known.get("optimizer", 0)),
            weight_norms=self._weight_norms.copy(),
            motion=motion,
            loss=known.get("loss", math.nan),
            has_loss=has_loss,
            **asked,
        )

    def _note(self, kept: FloatArray, places: Any, rows: pd.DataFrame, column: str) -> None:
        if column in rows:
            values = rows[column].to_numpy(dtype=np.float64)
            there = ~np.isnan(values)
            kept[places[there]] = values[there]


def _rows(steps: pd.DataFrame | None) -> dict[int, dict[str, float]]:
    if steps is None:
        return {}
    return {int(row["step"]): {str(name): float(row[name]) for name in row} for row in steps.to_dict("records")}


def _entries(history: pd.DataFrame) -> Any:
    """Entries of each layer: the square of its norm over its root mean square."""
    if "rms" not in history:
        return history.drop_duplicates("layer").set_index("layer")["norm"] * 0 + 1
    known = history[(history["rms"] > 0) & np.isfinite(history["norm"]) & (history["norm"] > 0)]
    return ((known["norm"] / known["rms"]) ** 2).round().clip(lower=1).groupby(known["layer"]).first()


def _moved(motion: FloatArray, weight_norms: FloatArray) -> float:
    """How far all weights have moved together, relative to them."""
    known = np.isfinite(motion) & np.isfinite(weight_norms)
    whole = float(np.sqrt(np.sum(weight_norms[known] ** 2)))
    return float(np.sqrt(np.sum((motion * weight_norms)[known] ** 2))) / whole if whole > 0 else math.nan
