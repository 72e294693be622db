"""Scoring: what a treatment is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from experiments.corpus import FAILS, Label, Scenario
from experiments.scoreboard.repair.outcomes import Outcome
from grad_callbacks.events import KINDS

REPAIRED = 0.95  # of the level
HARMED = 0.98  # of the unguarded quality

Result = Literal["repaired", "not repaired", "harmless", "harmed", "refused"]


@dataclass(frozen=True)
class Verdict:
    """What a treatment came to on one run.

    Attributes:
        outcome: What came of the run.
        kind: The kind that it counts for; empty for a healthy run.
        result: Of a failing run ``"repaired"``: it reaches 0.95 of its level (see :func:`level_of`); or ``"not
            repaired"``. Of a healthy one ``"harmed"``: it falls below 0.98 of its unguarded quality; ``"harmless"``; or
            ``"refused"``: it could not be trained with this treatment at all.
        before: Quality of the unguarded run relative to the level, within 0 and 1.
        after: That of the treated run.
    """

    outcome: Outcome
    kind: str
    result: Result
    before: float
    after: float


@dataclass(frozen=True)
class Score:
    """A treatment's score.

    Attributes:
        treatment: Its name.
        verdicts: One per run that is failing, or healthy and among those looked at.
    """

    treatment: str
    verdicts: Sequence[Verdict]

    def metrics(self) -> dict[str, float]:
        """Return all figures; NaN where there is nothing to divide by.

        Shares are of failing runs. Quality is relative to the level. ``repaired_low`` and
        ``repaired_high`` are the least and the greatest share of a seed, ``repaired_median`` the one between.
        ``time_ratio`` is the median over the runs that were timed. ``touched`` counts healthy runs in which a remedy
        was applied.
        """
        failing, healthy = self.failing(), [verdict for verdict in self.verdicts if not verdict.kind]
        seeds = sorted({verdict.outcome.seed for verdict in failing})
        shares = [_share([v for v in failing if v.outcome.seed == seed], "repaired") for seed in seeds]
        ratios = [v.outcome.time_ratio for v in self.verdicts if not math.isnan(v.outcome.time_ratio)]
        return {
            "repaired": _share(failing, "repaired"),
            **{f"repaired_{kind}": _share(self.failing(kind), "repaired") for kind in KINDS},
            "repaired_low": min(shares, default=math.nan),
            "repaired_median": median(shares) if shares else math.nan,
            "repaired_high": max(shares, default=math.nan),
            "quality": fmean(v.after for v in failing) if failing else math.nan,
            "quality_gained": fmean(v.after - v.before for v in failing) if failing else math.nan,
            "failing_runs": float(len(failing)),
            "healthy_runs": float(len(healthy)),
            "harmed": float(sum(v.result == "harmed" for v in healthy)),
            "harmed_share": _share(healthy, "harmed"),
            "touched": float(sum(bool(v.outcome.remedies) for v in healthy)),
            "refused": float(sum(bool(v.outcome.error) for v in self.verdicts)),
            "time_ratio": median(ratios) if ratios else math.nan,
        }

    def failing(self, kind: str | None = None) -> list[Verdict]:
        """Return the verdicts on failing runs, or on those that count for ``kind``."""
        return [v for v in self.verdicts if v.kind and kind in (None, v.kind)]


def score(
    treatment: str,
    outcomes: Iterable[Outcome],
    unguarded: Mapping[tuple[str, int], Outcome],
    scenarios: Mapping[str, Scenario],
    labels: Mapping[tuple[str, int], Label],
    faultless: Sequence[Outcome] = (),
) -> Score:
    """Score one treatment.

    Unsettled runs are left out, and so are failing ones that nothing was expected of, and those that fail as well
    without the fault that was injected into them: there is nothing to repair.

    Args:
        treatment: Its name.
        outcomes: What came of its runs.
        unguarded: What came of all runs without it, those of the references among them, by scenario and seed.
        scenarios: By name; runs of others are left out.
        labels: By scenario and seed.
        faultless: What came of the runs without their faults.
    """
    verdicts = []
    for outcome in outcomes:
        scenario = scenarios.get(outcome.scenario)
        label = labels.get(outcome.run, "unsettled")
        if scenario is None or label == "unsettled" or (label == "failing" and not scenario.kinds):
            continue
        level = level_of(scenario, unguarded.values(), faultless)
        before = unguarded[outcome.run].quality
        if label == "failing" and before >= FAILS * level:
            continue
        kind = scenario.kind if label == "failing" else ""
        result = _repair(outcome, level) if kind else _harm(outcome, before)
        verdicts.append(Verdict(outcome, kind, result, _relative(before, level), _relative(outcome.quality, level)))
    return Score(treatment, verdicts)


def level_of(scenario: Scenario, unguarded: Iterable[Outcome], faultless: Iterable[Outcome] = ()) -> float:
    """The quality that a healthy run of a scenario has: the median over the seeds.

    That is its reference's, or where a fault was injected that of the same run without it: no remedy can do more within
    the run's steps than undo the fault.
    """
    return median(_qualities(faultless, scenario.name) or _qualities(unguarded, scenario.reference))


def _qualities(outcomes: Iterable[Outcome], name: str) -> list[float]:
    return [o.quality for o in outcomes if o.scenario == name and math.isfinite(o.quality)]


def _repair(outcome: Outcome, level: float) -> Result:
    return "repaired" if outcome.quality >= REPAIRED * level else "not repaired"


def _harm(outcome: Outcome, before: float) -> Result:
    if outcome.error:
        return "refused"
    return "harmless" if outcome.quality >= HARMED * before else "harmed"


def _relative(quality: float, level: float) -> float:
    return min(max(quality / level, 0.0), 1.0) if math.isfinite(quality) else 0.0


def _share(verdicts: Sequence[Verdict], result: Result) -> float:
    return sum(v.result == result for v in verdicts) / len(verdicts) if verdicts else math.nan
