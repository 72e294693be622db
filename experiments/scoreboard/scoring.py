"""Scoring: what a detector's alarms on labelled runs are worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from experiments.corpus import Label, Scenario, onset_of
from experiments.scoreboard.detectors import Alarm, episodes
from experiments.scoreboard.judging import Judged
from grad_callbacks.events import KINDS

Result = Literal["hit", "missed", "wrong kind", "false alarm", "quiet"]


@dataclass(frozen=True)
class Verdict:
    """What came of one detector on one run.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        kind: The kind that the run counts for; empty for a healthy one.
        result: ``"hit"``: a failing run, and the first alarm names an accepted kind; ``"wrong kind"``: it does not;
            ``"missed"``: there is none; ``"false alarm"``: a healthy run with an alarm; ``"quiet"``: without.
        alarm: The first alarm, if any; of several at the same step the one that is right.
        alarms: Number of alarms, those less than 20 steps apart counted once.
        readings: Steps that were read.
        delay: Steps from the onset to a hit, 0 for one before it; NaN for anything else.
        is_early: The hit came before the onset.
        lead: Steps from a hit to where the loss was lost, negative if it came later; NaN where there was no loss to
            lose, it never was, or it was before the run began to go wrong: such a loss says nothing of the run.
        cause_is_right: The hit names an accepted cause; None for anything else, or if none is named.
    """

    scenario: str
    seed: int
    kind: str
    result: Result
    alarm: Alarm | None
    alarms: int
    readings: int
    delay: float = math.nan
    is_early: bool = False
    lead: float = math.nan
    cause_is_right: bool | None = None


@dataclass(frozen=True)
class Score:
    """A detector's score.

    Attributes:
        detector: Its name.
        verdicts: One per run that is healthy or failing.
    """

    detector: str
    verdicts: Sequence[Verdict]

    def metrics(self) -> dict[str, float]:
        """Return all figures; NaN where there is nothing to divide by."""
        hits, healthy = self.named("hit"), self.named("false alarm", "quiet")
        alarmed = self.named("hit", "wrong kind", "false alarm")
        leads = self._leads(hits)
        causes = [hit.cause_is_right for hit in hits if hit.cause_is_right is not None]
        false_alarms = sum(verdict.alarms for verdict in healthy)
        return {
            "precision": _ratio(len(hits), len(alarmed)),
            "recall": _ratio(len(hits), len(self.named("hit", "wrong kind", "missed"))),
            **{f"recall_{kind}": self._recall(kind) for kind in KINDS},
            "false_alarms_per_10000_steps": 1e4 * _ratio(false_alarms, sum(verdict.readings for verdict in healthy)),
            "healthy_runs_alarmed": float(len(self.named("false alarm"))),
            "healthy_runs": float(len(healthy)),
            "failing_runs": float(len(self.named("hit", "wrong kind", "missed"))),
            "wrong_kind": float(len(self.named("wrong kind"))),
            "median_delay": _median([hit.delay for hit in hits]),
            "early_hits": float(sum(hit.is_early for hit in hits)),
            "median_lead": _median(leads),
            **{f"median_delay_{kind}": _median([hit.delay for hit in hits if hit.kind == kind]) for kind in KINDS},
            **{f"median_lead_{kind}": _median(self._leads(hits, kind)) for kind in KINDS},
            "cause_accuracy": _ratio(sum(causes), len(causes)),
        }

    def named(self, *results: Result) -> list[Verdict]:
        """Return the verdicts with one of ``results``."""
        return [verdict for verdict in self.verdicts if verdict.result in results]

    @staticmethod
    def _leads(hits: Sequence[Verdict], kind: str | None = None) -> list[float]:
        return [hit.lead for hit in hits if kind in (None, hit.kind) and not math.isnan(hit.lead)]

    def _recall(self, kind: str) -> float:
        of_kind = [verdict for verdict in self.verdicts if verdict.kind == kind]
        return _ratio(sum(verdict.result == "hit" for verdict in of_kind), len(of_kind))


def score(
    detector: str,
    runs: Iterable[Judged],
    scenarios: Mapping[str, Scenario],
    labels: Mapping[tuple[str, int], Label],
) -> Score:
    """Score one detector.

    Unsettled runs are left out, and so are failing ones that nothing was expected of: no kind would be right.

    Args:
        detector: Its name.
        runs: What was said about each run.
        scenarios: By name; runs of others are left out.
        labels: By scenario and seed.
    """
    verdicts = []
    for run in runs:
        scenario = scenarios.get(run.scenario)
        label = labels.get((run.scenario, run.seed), "unsettled")
        if scenario is None or label == "unsettled" or (label == "failing" and not scenario.kinds):
            continue
        verdicts.append(_verdict(run, run.alarms[detector], scenario, label))
    return Score(detector, verdicts)


def _verdict(run: Judged, alarms: Sequence[Alarm], scenario: Scenario, label: Label) -> Verdict:
    first = _decisive(alarms, scenario)
    count = len(episodes(alarms))
    if label == "healthy":
        result: Result = "quiet" if first is None else "false alarm"
        return Verdict(run.scenario, run.seed, "", result, first, count, run.readings)
    if first is None or not set(first.kinds) & set(scenario.kinds):
        result = "missed" if first is None else "wrong kind"
        return Verdict(run.scenario, run.seed, scenario.kind, result, first, count, run.readings)
    onset = onset_of(scenario, run.lost)
    return Verdict(
        run.scenario,
        run.seed,
        scenario.kind,
        "hit",
        first,
        count,
        run.readings,
        delay=float(max(0, first.step - onset)),
        is_early=first.step < onset,
        lead=float(run.lost - first.step) if run.lost and run.lost >= onset else math.nan,
        cause_is_right=first.cause in scenario.causes if first.cause else None,
    )


def _decisive(alarms: Sequence[Alarm], scenario: Scenario) -> Alarm | None:
    """The first alarm; of several at the same step the one that is right, if any."""
    at_once = [alarm for alarm in alarms if alarm.step == alarms[0].step]
    right = [alarm for alarm in at_once if set(alarm.kinds) & set(scenario.kinds)]
    return next(iter(right or at_once), None)


def _median(values: Sequence[float]) -> float:
    return median(values) if values else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
