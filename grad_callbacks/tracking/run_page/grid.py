"""A history as a grid of layers by steps, small enough to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

MAX_COLUMNS = 600  # of a grid: more steps are averaged
MAX_CELLS = 150_000  # of a grid: very deep models get fewer columns


@dataclass(frozen=True, eq=False)
class Grid:
    """Values by layer and span of steps.

    Attributes:
        layers: Names in forward order, one per row.
        first: First step of the first column.
        width: Steps in a column.
        log10: Mean of log10 of the value, shape ``(layers, columns)``; NaN where there was none above zero.
        nonfinite: True where the column holds a NaN or infinite value.
        zero: True where all the column holds is zero.
    """

    layers: tuple[str, ...]
    first: int
    width: int
    log10: NDArray[np.float64]
    nonfinite: NDArray[np.bool_]
    zero: NDArray[np.bool_]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where columns begin and end on the axis of steps; step n reaches from n - 0.5 to n + 0.5."""
        return self.first + np.arange(self.log10.shape[1] + 1) * self.width - 0.5


def layers_of(history: pd.DataFrame) -> list[str]:
    """Return the layers' names in forward order."""
    names: list[str] = history.drop_duplicates("layer").sort_values("depth", kind="stable")["layer"].tolist()
    return names


def grid_of(history: pd.DataFrame, value: str, keeps_nan: bool = False) -> Grid:
    """Average the steps of a history into columns.

    Args:
        history: One row per step and layer, at least one.
        value: The column to show.
        keeps_nan: NaN means that nothing was measured, not that the value is not finite.
    """
    layers = layers_of(history)
    steps = history["step"].to_numpy()
    first, last = int(steps.min()), int(steps.max())
    most = max(1, min(MAX_COLUMNS, MAX_CELLS // len(layers)))
    width = max(1, -(-(last - first + 1) // most))
    shape = (len(layers), (last - first) // width + 1)
    place = {layer: row for row, layer in enumerate(layers)}
    cells = history["layer"].map(place).to_numpy() * shape[1] + (steps - first) // width
    numbers = history[value].to_numpy(dtype=np.float64)
    nonfinite = np.isinf(numbers) if keeps_nan else ~np.isfinite(numbers)
    usable = np.isfinite(numbers) & (numbers > 0)
    known = np.isfinite(numbers) | nonfinite

    def count(chosen: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        weights = None if weights is None else weights[chosen]
        return np.bincount(cells[chosen], weights, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    with np.errstate(divide="ignore", invalid="ignore"):
        log10 = count(usable, np.log10(numbers)) / count(usable)
    return Grid(
        layers=tuple(layers),
        first=first,
        width=width,
        log10=log10,
        nonfinite=count(nonfinite) > 0,
        zero=(count(known) > 0) & (count(known & (numbers != 0)) == 0),
    )
