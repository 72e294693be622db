"""The few numbers of each step that the pictures of a run show, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from grad_callbacks._utils.extras import needs
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.reporting.step_result import StepResult

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StepSeriesThresholds(Thresholds):
    """How long a series of steps gets."""

    rows: int = threshold(
        20_000, "beyond it every second row is dropped", unit="rows, one per step", source="not measured"
    )
    waiting: int = threshold(
        32, "steps whose rows are made together, when their readings have been", unit="steps", source="not measured"
    )


LIMITS = StepSeriesThresholds()

COLUMNS = ("step", "optimizer", "norm", "norm_clipped", "lr_effective", "loss")
# Of the reading, what rules ask for beside the layers' norms: so that a run can be judged again from its tables.
FOR_RULES = (
    *("displacement", "moved", "squares_decay", "fill", "overflow", "clip_at"),
    *("through_time", "recurrence", "attention_score", "attention_entropy"),
)


_for_rules = attrgetter(*FOR_RULES)


class StepSeries:
    """One row per step that was judged, thinned out evenly when they become too many.

    Beyond ``max_steps`` rows every second one is dropped and only every second step is noted from then on, and so
    forth; steps with an alert or an intervention are noted all the same, until they are thinned out in their turn.

    Args:
        max_steps: How many rows are kept at most, 20000 by default.
    """

    def __init__(self, max_steps: int = LIMITS.rows) -> None:
        self.max_steps = max_steps
        self._rows: list[tuple[float, ...]] = []
        self._new: list[StepResult] = []  # steps whose rows are made together
        self._seen: dict[int, int] = {}  # steps so far of each optimizer
        self._stride = 1

    def note(self, result: StepResult) -> None:
        """Add the step's row."""
        reading = result.reading
        place = self._seen.get(reading.optimizer, 0)
        self._seen[reading.optimizer] = place + 1
        if place % self._stride and not result.alerts and not result.interventions:
            return
        self._new.append(result)
        if len(self._rows) + len(self._new) > self.max_steps:
            self.settle()
            self._rows = self._rows[::2]
            self._stride *= 2
        elif len(self._new) >= LIMITS.waiting:
            self.settle()

    def settle(self) -> None:
        """Make the rows of the latest steps, and let go of their readings, which hold the model."""
        self._rows.extend(map(_row, self._new))
        self._new.clear()

    def norms(self) -> list[tuple[float, float]]:
        """Return step and global norm, before any remedy, of the optimizer that was noted first."""
        self.settle()
        return [(row[0], row[2]) for row in self._rows if row[1] == self._rows[0][1]]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows.

        Returns:
            Columns ``step``, ``optimizer`` (its index), ``norm`` (global, before any remedy), ``norm_clipped`` (of the
            step that was taken), ``lr_effective`` (learning rate of the first parameter group), ``loss`` (the
            training loss; NaN where unknown), and those of :data:`FOR_RULES` (see
            :class:`~grad_callbacks.Reading`).
        """
        with needs("plots", "a table of the steps"):
            import pandas as pd

        self.settle()
        names = [*COLUMNS, *FOR_RULES]
        return pd.DataFrame(self._rows, columns=names).astype({"step": "int64", "optimizer": "int64"})

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists."""
        self.settle()
        return {"rows": [list(row) for row in self._rows], "seen": dict(self._seen), "stride": self._stride}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._new.clear()
        width = len(COLUMNS) + len(FOR_RULES)  # an older version kept fewer columns
        self._rows = [(*row, *[math.nan] * (width - len(row))) for row in state["rows"]]
        self._seen, self._stride = dict(state["seen"]), state["stride"]


def _row(result: StepResult) -> tuple[float, ...]:
    reading = result.reading
    asked = (reading.norm, result.norm_clipped, result.lr_effective, reading.loss, *_for_rules(reading))
    return reading.step, reading.optimizer, *[math.nan if value is None else float(value) for value in asked]
