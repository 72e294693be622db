"""Scoring: what a fault has cost, what a treatment has won back, and whether the guard says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from experiments.data.documents import ALPHABET
from experiments.scoreboard.language_model.results import Result
from experiments.scoreboard.language_model.settings import Setting
from experiments.scoreboard.language_model.shelf import Shelf
from experiments.scoreboard.language_model.treatments import BOTH, CLIP, NONE, OURS

# In nats a byte above the unhurt twin, which ends at some 2.2. Seeds of one setting differ by some .02.
FAILS = 0.1  # more is a failing run
HEALTHY = 0.05  # no more is a healthy one; between the two it counts for neither
REPAIRED = 0.05  # no more is repaired
LOST = 0.5  # above the twin's training loss, on the mean of `WINDOW` batches: the loss is lost
WINDOW = 10
CHANCE = math.log(ALPHABET)  # of a model that has learned nothing; nothing counts as worse, nor what is not finite

Label = Literal["healthy", "unsettled", "failing"]
COMPARED = {OURS: NONE, BOTH: CLIP}  # a guard that does nothing leaves the weights of these, bit by bit


@dataclass(frozen=True)
class Row:
    """What came of one setting, over its seeds.

    Attributes:
        setting: The setting.
        twins: Results of the unhurt twin, one per seed.
        results: Those of the setting by treatment, one per seed.
    """

    setting: Setting
    twins: Sequence[Result]
    results: dict[str, Sequence[Result]]

    @property
    def label(self) -> Label:
        """What the setting turned out to be without treatment, whatever was expected of it."""
        cost = self.cost(NONE)
        return "failing" if cost > FAILS else "healthy" if cost <= HEALTHY else "unsettled"

    @property
    def twin(self) -> float:
        """Nats of the unhurt twin, the mean over the seeds."""
        return fmean(_capped(twin.nats) for twin in self.twins)

    def cost(self, treatment: str) -> float:
        """Nats above the unhurt twin, the mean over the seeds."""
        pairs = zip(self.results[treatment], self.twins, strict=True)
        return fmean(_capped(result.nats) - _capped(twin.nats) for result, twin in pairs)

    @property
    def lost(self) -> float:
        """The first step at which, and on the mean after which, the untreated loss is far above the twin's; else NaN.

        It is told of the first seed.
        """
        hurt, twin = self.results[NONE][0], self.twins[0]
        above = [_capped(ours) - _capped(its) for ours, its in zip(hurt.losses, twin.losses, strict=False)]
        for start in range(len(above) - WINDOW + 1):
            if above[start] > LOST and fmean(above[start : start + WINDOW]) > LOST:
                return start / hurt.batches_a_step
        return math.nan

    def delay(self, treatment: str) -> float:
        """Steps from where the setting is hurt to the first alert, on the first seed; NaN without one."""
        return _first(self.results[treatment][0]) - self.setting.onset

    def lead(self, treatment: str) -> float:
        """Steps from the first alert to where the loss is lost, on the first seed; NaN without one."""
        return self.lost - _first(self.results[treatment][0])

    def alerted(self, treatment: str) -> int:
        """How many seeds had an alert."""
        return sum(bool(result.alerts) for result in self.results[treatment])

    def unchanged(self, treatment: str) -> int | None:
        """How many seeds ended with the very weights of the run without the guard; None if there is no such run."""
        if COMPARED[treatment] not in self.results:
            return None
        pairs = zip(self.results[treatment], self.results[COMPARED[treatment]], strict=True)
        return sum(ours.weights == its.weights and not ours.error for ours, its in pairs)

    def untrue(self, treatment: str) -> list[str]:
        """What the guard has said of seeds that is not so: ``repaired`` far from the twin, ``healthy`` of a failing."""
        told = []
        for result, twin in zip(self.results[treatment], self.twins, strict=True):
            cost = _capped(result.nats) - _capped(twin.nats)
            if cost > {"repaired": REPAIRED, "healthy": FAILS}.get(result.outcome, math.inf):
                told.append(f"{result.outcome}, {cost:+.2f}")
        return told


def rows_of(shelf: Shelf, settings: Sequence[Setting], treatments: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """Return a row for each setting whose runs are all there."""
    rows = []
    for setting in settings:
        twins = _all([shelf.twin(setting, seed) for seed in seeds])
        results = {name: _all([shelf.result(setting, name, seed) for seed in seeds]) for name in treatments}
        if twins and all(results.values()):
            rows.append(Row(setting, twins, {name: found for name, found in results.items() if found}))
    return rows


def _all(found: Sequence[Result | None]) -> list[Result] | None:
    there = [one for one in found if one is not None]
    return there if len(there) == len(found) else None


def _first(result: Result) -> float:
    return float(min((step for step, _, _ in result.alerts), default=math.nan))


def _capped(nats: float) -> float:
    return min(nats, CHANCE) if math.isfinite(nats) else CHANCE
