"""What was logged, and what of it a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Item = tuple[str, ...]  # what it is, its name, and its value: ("metric", "loss", "3", "0.5")
Entry = frozenset[Item]  # of one call of the logger, which is one line of the journal
OWN_TAGS = ("mlflow.", "grad.")  # which MLflow and the journal add by themselves
ANY = "*"  # a content that is not compared


def metrics(values: Mapping[str, float], step: int) -> Entry:
    """Return the entry of one call of ``log_metrics``."""
    return frozenset(("metric", name, str(step), number(value)) for name, value in values.items())


def number(value: float) -> str:
    """Return a text that is the same for the same value, NaN included; a store keeps infinity as the largest one."""
    return repr(max(-1.7976931348623157e308, min(1.7976931348623157e308, float(value))))


def single(*item: Any) -> Entry:
    """Return an entry of one item, such as ``single("param", "lr", 0.1)``."""
    return frozenset([tuple(str(part) for part in item)])


@dataclass(frozen=True)
class Found:
    """One run in a store.

    Attributes:
        run_id: Its id there.
        items: How often each item is there.
    """

    run_id: str
    items: Counter[Item]

    def has(self, item: Item) -> bool:
        """True if the run holds the item."""
        if item[-1] == ANY:
            return any(found[:-1] == item[:-1] for found in self.items)
        return item in self.items


@dataclass(frozen=True)
class Difference:
    """How a store differs from what was logged.

    Attributes:
        missing: Entries of which an item is missing.
        values: Items that are missing.
        twice: Items that are there more than once, and runs beyond the first.
        invented: Values that nobody has logged.
    """

    missing: list[Entry] = field(default_factory=list)
    values: int = 0
    twice: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)


def difference(logged: Sequence[Entry], runs: Sequence[Found], optional: Iterable[Entry] = ()) -> Difference:
    """Compare one run's log with the runs that a store holds.

    Args:
        logged: Everything that must be there.
        runs: What is there.
        optional: What may be there as well: the call in which a process was killed.
    """
    if not runs:
        return Difference(list(logged), sum(map(len, logged)))
    items: Counter[Item] = sum((run.items for run in runs), Counter())
    whole = Found("", items)
    missing = [entry for entry in logged if not all(map(whole.has, entry))]
    values = sum(not whole.has(item) for entry in logged for item in entry)
    twice = [f"{count} x {' '.join(item)}" for item, count in items.items() if item[0] == "metric" and count > 1]
    if len(runs) > 1:
        twice.append(f"{len(runs)} runs")
    allowed = {item for entry in (*logged, *optional) for item in entry}
    named = {item[:2] for item in allowed if item[-1] == ANY}
    invented = [
        " ".join(item)
        for item in items
        if item not in allowed
        and item[:2] not in named
        and item[0] in ("metric", "param", "tag", "artifact")
        and not item[1].startswith(OWN_TAGS)
    ]
    return Difference(missing, values, twice, invented)
