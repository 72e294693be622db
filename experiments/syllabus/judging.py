"""What came of the claims: outcomes over seeds, and whether what was claimed held."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from experiments.syllabus.claims import Setting
from experiments.syllabus.problems import PROBLEMS, Problem
from experiments.syllabus.runs import Job, Outcome

SMALL = 1e-3  # the first layer's error over the last's from which on down it has vanished; its inverse has exploded
RISEN = 2.0  # times the first gradient's norm from which on up the gradient of a net that is lost has exploded
PRODUCT = 0.01  # relative deviation from the product that the text computes
ILL = 0.5  # share of a good quality below which a net counts as lost

Held = Literal["held", "in part", "did not hold"]


@dataclass(frozen=True)
class Many:
    """The outcomes of one setting over its seeds, never empty."""

    outcomes: Sequence[Outcome]

    @property
    def qualities(self) -> list[float]:
        """Of all seeds."""
        return [outcome.quality for outcome in self.outcomes]

    @property
    def quality(self) -> float:
        """The median."""
        return median(self.qualities)

    def middle(self, name: str) -> float:
        """Return the median of a measure over the seeds in which it is a number; NaN if there is none."""
        found = [float(outcome.measured[name]) for outcome in self.outcomes if outcome.measured[name] is not None]
        known = [value for value in found if not math.isnan(value)]
        return median(known) if known else math.nan

    @property
    def verdicts(self) -> str:
        """The verdicts, each with the number of its seeds unless it is the only one."""
        return _counted(outcome.verdict for outcome in self.outcomes)

    @property
    def remedies(self) -> list[str]:
        """What the guard applied in any seed."""
        return list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.remedies))


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{word} {count}" for word, count in counts)


Results = Mapping[Setting, Many]


def collect(jobs: Iterable[Job]) -> dict[Setting, Many]:
    """Read the outcomes of all runs that are done, by setting."""
    found: dict[Setting, list[Outcome]] = {}
    for job in jobs:
        if job.path.exists():
            found.setdefault(job.setting, []).append(Outcome.read(job.path))
    return {setting: Many(outcomes) for setting, outcomes in found.items()}


def judge(setting: Setting, results: Results) -> Held:
    """Say whether what a setting claims held: that its problem is one, or that its cure cures it.

    A cause held if the net is lost and its error, or its gradient during the training, does what is claimed. A cure
    held if the median quality is good, in part if it is above half way from the lost net to there.

    Raises:
        KeyError: If the setting, or its problem, was not trained.
    """
    problem, many = PROBLEMS[setting.problem], results[setting]
    if not setting.cures and setting.guard == "monitor":
        return "held" if many.quality < ILL * problem.good and SIGNS[problem.kind](problem, many) else "did not hold"
    if many.quality >= problem.good:
        return "held"
    lost = results[Setting(setting.problem, biases=setting.biases)].quality
    return "in part" if many.quality >= (lost + problem.good) / 2 else "did not hold"


def _vanishes(problem: Problem, many: Many) -> bool:
    ratio = many.middle("error_ratio")
    return _is_product(problem, ratio) and ratio < SMALL


def _explodes(problem: Problem, many: Many) -> bool:
    if not problem.at_start:
        return any(map(_has_risen, many.outcomes))
    ratio = many.middle("error_ratio")
    return _is_product(problem, ratio) and ratio > 1 / SMALL


def _is_product(problem: Problem, ratio: float) -> bool:
    return problem.product is None or abs(ratio / problem.product - 1) < PRODUCT


def _has_risen(outcome: Outcome) -> bool:
    measured = outcome.measured
    return measured["nonfinite_step"] is not None or measured["norm_highest"] > RISEN * measured["norm_first"]


SIGNS: Mapping[str, Callable[[Problem, Many], bool]] = {"vanishing": _vanishes, "exploding": _explodes}
