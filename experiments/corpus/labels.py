"""Labels: whether a run failed, from its outcome over the seeds and never from a rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.corpus.scenarios import Scenario

FAILS, HEALTHY = 0.85, 0.93  # of the reference's median quality
WINDOW = 9  # losses over which the loss is smoothed
HALF = 0.5  # of the way from the best loss back to the first
LEARNED = 0.1  # of the first loss that must have been gained to call anything learned

Label = Literal["failing", "healthy", "unsettled"]


@dataclass(frozen=True)
class Labelled:
    """The labels of a corpus.

    Attributes:
        labels: By scenario and seed. A run is ``"unsettled"``, and left out of the score, if its quality lies
            between the limits, or if its scenario's other seeds have agreed on another label.
        contradictions: Scenarios whose label is not the one that their config expects.
    """

    labels: dict[tuple[str, int], Label]
    contradictions: list[str]


def label_runs(scenarios: Mapping[str, Scenario], qualities: Mapping[tuple[str, int], float]) -> Labelled:
    """Label runs by their final quality.

    A run fails if its quality is not finite or below 0.85 times the median of its reference's over the seeds, and is
    healthy from 0.93 times on. A scenario has the label of the majority of its seeds; the others are left out, and so
    are all where there is no majority.

    Args:
        scenarios: The scenarios, by name.
        qualities: Final quality by scenario and seed, those of the references among them. A run whose reference has
            no finite quality is unsettled.
    """
    levels = {
        name: median(values)
        for name in {scenario.reference for scenario in scenarios.values()}
        if (values := [q for (scenario, _), q in qualities.items() if scenario == name and math.isfinite(q)])
    }
    labels: dict[tuple[str, int], Label] = {}
    contradictions = []
    for scenario in scenarios.values():
        level = levels.get(scenario.reference, math.nan)
        own = {run: _label(quality, level) for run, quality in qualities.items() if run[0] == scenario.name}
        agreed = _majority(own.values())
        labels |= {run: label if label == agreed else "unsettled" for run, label in own.items()}
        if agreed == ("healthy" if scenario.kinds else "failing"):
            contradictions.append(scenario.name)
    return Labelled(labels, contradictions)


def _label(quality: float, level: float) -> Label:
    if math.isnan(level):
        return "unsettled"
    if not quality >= FAILS * level:
        return "failing"
    return "healthy" if quality >= HEALTHY * level else "unsettled"


def _majority(labels: Iterable[Label]) -> Label:
    counts = Counter(labels)
    best = max(counts, key=counts.__getitem__, default="unsettled")
    return best if 2 * counts[best] > counts.total() else "unsettled"


def lost_at(steps: NDArray[np.int64], losses: NDArray[np.float64]) -> int | None:
    """Return the step from which on the training loss is lost: known with hindsight, and only from the loss.

    The loss is smoothed by a centred median over 9 steps, in which a loss that is not finite is infinite. The first
    loss is the median of the first 5, the best the least of the smoothed ones. The loss is lost once it has gone back
    more than half of the way from its best to the first, and never comes back. Where it never fell by a tenth of the
    first, nothing was ever learned: 0.

    Why half: losses of batches differ, and a healthy loss rises for a while; but nobody gives up half of what a run
    has learned for good. The median moves no jump: a loss that is not finite from a step on is lost at that step.

    Args:
        steps: Ascending, shape ``(steps,)``.
        losses: Training loss of each.

    Returns:
        The step; None if the loss is not lost at the end.
    """
    known = np.where(np.isfinite(losses), losses, np.inf)
    if len(known) < WINDOW:
        return 0
    half = WINDOW // 2
    padded = np.concatenate([np.repeat(known[:1], half), known, np.repeat(known[-1:], half)])
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=1)
    first, best = float(np.median(known[:5])), float(smooth.min())
    if math.isfinite(first):
        if not best < first - LEARNED * abs(first):
            return 0
        limit = best + HALF * (first - best)
    else:
        limit = best
    if not math.isfinite(best):
        return 0
    last = int(np.nonzero(smooth <= limit)[0][-1])
    return None if last == len(smooth) - 1 else int(steps[last + 1])


def onset_of(scenario: Scenario, lost: int | None) -> int:
    """Return the step at which a failing run began to go wrong: as its config says, or else where its loss was lost.

    A run that failed although its loss was never lost was wrong from the start.

    Args:
        scenario: The run's scenario.
        lost: From :func:`lost_at`.
    """
    return scenario.onset if scenario.onset is not None else lost or 0
