"""The tables, as markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.bench.timing import Spread

Unit = Literal["×", "ms"]
COLUMNS = ("case", "what", "against", "median", "range", "promise", "kept?")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: The model and its circumstances.
        what: What was timed.
        against: What it was compared with.
        spread: The outcome; None if it could not be timed.
        promise: The median must not exceed it; None where nothing is promised.
        unit: Of the outcome: a ratio, or milliseconds added.
    """

    case: str
    what: str
    against: str
    spread: Spread | None
    promise: float | None = None
    unit: Unit = "×"

    def cells(self) -> list[str]:
        """Return one text per column."""
        if self.spread is None:
            return [self.case, self.what, self.against, "not installed", "–", "–", "–"]
        spread = self.spread
        around = f"{_number(spread.low, self.unit)}–{_number(spread.high, self.unit)}"
        cells = [self.case, self.what, self.against, f"**{_number(spread.median, self.unit)}** {self.unit}", around]
        if self.promise is None:
            return [*cells, "–", "–"]
        return [*cells, f"≤ {self.promise:g} {self.unit}", "yes" if spread.median <= self.promise else "no"]


@dataclass(frozen=True)
class Section:
    """One benchmark: a title, how it was measured, and its rows."""

    title: str
    method: str
    rows: list[Row]

    def markdown(self) -> str:
        """Return heading, text and table."""
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in self.rows)]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.method}\n\n{table}\n"


def _number(value: float, unit: Unit) -> str:
    return f"{value:.3f}" if unit == "×" else f"{value:+.2f}"
