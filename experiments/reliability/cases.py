"""One try of one fault: what came of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from experiments.reliability import told
from experiments.reliability.truth import Entry, Found, difference

if TYPE_CHECKING:
    from experiments.reliability.workplace import Workplace

COMPLETE, TOLD = "complete", "told"
SURVIVED = (COMPLETE, TOLD)
LIMIT = 120  # seconds that a case may take
KEPT = 3000  # characters of what was told
EXAMPLES = 3  # of what is wrong, that a case keeps


@dataclass(frozen=True)
class Case:
    """The outcome of one try.

    ============  ==============================================================
    ``complete``  everything is on the server, once
    ``told``      something is missing, and the user was told exactly how much
    ``silent``    something is missing without a word, or with a wrong number
    ``stuck``     something was never sent, and nobody was told how much: the command says "not all sent" for ever
    ``twice``     something is there twice, or two runs are
    ``wrong``     there is a value that nobody has logged, or a wrong status
    ``harm``      a file that is nobody's business was read or removed
    ``ended``     the training, or the whole ``sync``, ended with an error
    ``hung``      it did not come to an end
    ``error``     an exception that none of these explains
    ``not run``   what the case needs is not here
    ============  ==============================================================

    Attributes:
        name: Of the case within its row; a number is the seed.
        outcome: One of these.
        detail: What is missing or wrong.
        told: What the user was told.
    """

    name: str
    outcome: str
    detail: str = ""
    told: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without most of a long text."""
        return asdict(self) | {"told": self.told[-KEPT:]}


@dataclass(frozen=True)
class Row:
    """One fault, tried in several ways.

    Attributes:
        group: The rows that share a file of results.
        name: Short and unique.
        what: What is done, for the reader of the table.
        cases: Names of the cases; a number is the seed.
        run: Tries one.
        quick: How many of the cases ``--subset quick`` tries.
    """

    group: str
    name: str
    what: str
    cases: Sequence[str]
    run: Callable[[Workplace, str], Case]
    quick: int = 5

    def chosen(self, is_quick: bool) -> list[str]:
        """Return the cases of a subset: all of them, or some at equal distances."""
        if not is_quick or len(self.cases) <= self.quick:
            return list(self.cases)
        return [self.cases[i * len(self.cases) // self.quick] for i in range(self.quick)]


def judge(
    name: str,
    logged: Sequence[Entry],
    runs: Sequence[Found],
    said: str,
    journal: str = "",
    optional: Sequence[Entry] = (),
    also: frozenset[int] = frozenset(),
) -> Case:
    """Compare what was logged with what is on the server and with what was told.

    Args:
        name: Of the case.
        logged: What must be on the server.
        runs: What is there.
        said: What the user was told.
        journal: The journal's name. If nothing of it was sent, naming it tells what is missing.
        optional: What may be there.
        also: Numbers that tell the loss as exactly as the number of entries does: of damaged lines, for instance.
    """
    found = difference(logged, runs, optional)
    if found.twice:
        return Case(name, "twice", _some(found.twice), said)
    if found.invented:
        return Case(name, "wrong", f"nobody logged {_some(found.invented)}", said)
    if not found.missing:
        return Case(name, COMPLETE, "", said)
    what = _some(sorted(map(_text, found.missing)))
    detail = f"{len(found.missing)} of {len(logged)} entries missing ({what}); {_statuses(runs)}"
    if told.accounts_for(said, {len(found.missing), found.values} | also) or told.names_all(said, found.missing):
        return Case(name, TOLD, detail, said)
    if not runs and journal and told.names(said, journal):
        return Case(name, TOLD, f"nothing of it was sent: {detail}", said)
    return Case(name, "stuck" if "exit status 1" in said else "silent", detail, said)


@contextmanager
def time_limit(seconds: int = LIMIT) -> Iterator[None]:
    """Raise :class:`Hung` in the block when the time is over."""

    def stop(*_: object) -> None:
        raise Hung(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Hung(BaseException):
    """The time is over; not an ``Exception``, which the code under test might catch."""


def _statuses(runs: Sequence[Found]) -> str:
    return ", ".join(item[1] for run in runs for item in run.items if item[0] == "status") or "no run"


def _some(what: Sequence[str]) -> str:
    return ", ".join(what[:EXAMPLES]) + (" …" if len(what) > EXAMPLES else "")


def _text(entry: Entry) -> str:
    kind, *rest = min(entry)
    return " ".join([kind, *(part[:30] for part in rest)])
