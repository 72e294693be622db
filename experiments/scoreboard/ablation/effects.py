"""Effects: what a change costs and brings, in runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from experiments.corpus import Label
from experiments.scoreboard.ablation.changing import LEFT_OUT, NAMES, Change
from experiments.scoreboard.ablation.judging import Said


@dataclass(frozen=True)
class Effect:
    """What a change does to the runs.

    Attributes:
        lost: Failing runs that raised an alert and raise none any more.
        gained: The reverse.
        alarmed: Healthy runs that raised none and raise one now.
        calmed: The reverse.
        earlier: Failing runs whose first alert comes earlier.
        later: The reverse.
        other: Other runs with another kind or step among their alerts.
    """

    lost: int = 0
    gained: int = 0
    alarmed: int = 0
    calmed: int = 0
    earlier: int = 0
    later: int = 0
    other: int = 0

    @classmethod
    def of(cls, usual: Sequence[Said], said: Mapping[int, Said], labels: Sequence[Label]) -> Effect:
        """Compare what the rules say of runs.

        Args:
            usual: Of each run.
            said: Under the change, of those of which they say something else.
            labels: Of the runs.
        """
        counts = dict.fromkeys(asdict(cls()), 0)
        for place, after in said.items():
            counts[_what(usual[place], after, labels[place])] += 1
        return cls(**counts)


def _what(before: Said, after: Said, label: Label) -> str:
    if label == "failing" and bool(before) != bool(after):
        return "gained" if after else "lost"
    if label == "healthy" and bool(before) != bool(after):
        return "alarmed" if after else "calmed"
    if label == "failing" and before and after and before[0][1] != after[0][1]:
        return "later" if after[0][1] > before[0][1] else "earlier"
    return "other"


Effects = Mapping[str, Mapping[str, Effect | None]]  # by subject and change; None where nothing can be changed


def by_subject(found: Mapping[Change, Effect | None]) -> dict[str, dict[str, Effect | None]]:
    """Put the effects of one number or condition together."""
    effects: dict[str, dict[str, Effect | None]] = {}
    for change, effect in found.items():
        effects.setdefault(change.subject, {})[change.what] = effect
    return effects


def as_json(effects: Effects, runs: Mapping[str, int]) -> str:
    """Return the effects as JSON, numbers that are zero left out."""
    told = {
        subject: {
            what: None if effect is None else {name: count for name, count in asdict(effect).items() if count}
            for what, effect in changes.items()
        }
        for subject, changes in effects.items()
    }
    return json.dumps({"runs": dict(runs), "effects": told}, indent=1) + "\n"


def as_markdown(effects: Effects, runs: Mapping[str, int]) -> str:
    """Return the effects as a table, what decides most last; a dash where there is nothing to change."""
    named = " / ".join(f"{count} {label}" for label, count in runs.items())
    lines = [
        f"Of {named} runs: failing ones −lost +gained, healthy ones !alarmed ?calmed, first alert <earlier >later, "
        "~others changed; · nothing, – no such change.\n",
        f"| number or condition | {' | '.join([*NAMES.values(), LEFT_OUT])} |",
        f"| --- |{' --- |' * (len(NAMES) + 1)}",
    ]
    for subject in sorted(effects, key=lambda one: (_weight(effects[one]), one)):
        cells = [_cell(effects[subject].get(what)) for what in (*NAMES.values(), LEFT_OUT)]
        lines.append(f"| `{subject}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _weight(changes: Mapping[str, Effect | None]) -> int:
    told = [effect for effect in changes.values() if effect is not None]
    return max((1000 * (one.lost + one.alarmed) + sum(asdict(one).values()) for one in told), default=-1)


def _cell(effect: Effect | None) -> str:
    if effect is None:
        return "–"
    signs = dict(zip(asdict(effect), "−+!?<>~", strict=True))
    return " ".join(f"{signs[name]}{count}" for name, count in asdict(effect).items() if count) or "·"
