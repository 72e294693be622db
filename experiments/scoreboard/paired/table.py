"""Tables: for each family the share of runs that each treatment brings back, and its mean quality."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from experiments.scoreboard.paired.pairs import Pair
from experiments.scoreboard.repair.scoring import REPAIRED
from experiments.scoreboard.repair.treatments import BARE, OURS, UNGUARDED, Treatment


def tables(pairs: Sequence[Pair], treatments: Sequence[Treatment]) -> str:
    """Return markdown: one line for each scenario and rate, one column for each treatment.

    A cell has the share of the runs whose quality is at least .95 of their reference's, and the mean quality.
    """
    groups: dict[tuple[str, float], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.scenario, pair.rate), []).append(pair)
    names = [treatment.name for treatment in treatments]
    lines = [
        "| scenario | rate | runs | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    behind = []
    for (scenario, rate), group in groups.items():
        shares = {treatment.name: _share(group, treatment) for treatment in treatments}
        means = {treatment.name: _mean(group, treatment) for treatment in treatments}
        cells = " | ".join(f"{shares[name]:.2f}, {means[name]:.3f}" for name in names)
        lines.append(f"| {scenario.removeprefix('corpus/')} | x{rate:g} | {len(group)} | {cells} |")
        rivals = [name for name in names if name not in (OURS, UNGUARDED)]
        best = max(rivals, key=lambda name: (shares[name], means[name]), default=None)
        if best is not None and OURS in names and shares[best] > shares[OURS]:
            behind.append(
                f"{scenario.removeprefix('corpus/')} x{rate:g}: {best} {shares[best]:.2f}, {OURS} {shares[OURS]:.2f}"
            )
    told = "; ".join(behind) or "none"
    return "\n".join(
        [*lines, "", f"Families in which a single treatment brings back more runs than `{OURS}`: {told}.", ""]
    )


def _share(group: Sequence[Pair], treatment: Treatment) -> float:
    return fmean(_quality(pair, treatment) >= REPAIRED * _quality(pair, BARE) for pair in group)


def _mean(group: Sequence[Pair], treatment: Treatment) -> float:
    return fmean(_quality(pair, treatment) for pair in group)


def _quality(pair: Pair, treatment: Treatment) -> float:
    """The quality within 0 and 1; 0 where it is not finite."""
    quality = pair.outcome(treatment).quality
    return min(1.0, max(0.0, quality)) if quality == quality else 0.0
