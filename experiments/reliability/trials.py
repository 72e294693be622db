"""Tries cases, one after the other, and keeps what comes of them."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping, Sequence

from experiments.reliability.cases import Case, Hung, Row, time_limit
from experiments.reliability.report import summary
from experiments.reliability.results import Results
from experiments.reliability.workplace import Workplace


def try_all(
    rows: Sequence[Row], place: Workplace, results: Mapping[str, Results], is_quick: bool, case: str | None = None
) -> None:
    """Try a part of the cases of each row, and then the rest: a call that is stopped has tried something of each.

    Args:
        rows: The faults.
        place: Where they are tried.
        results: Those of each group; what was tried in earlier calls is not tried again.
        is_quick: Leave out the rest.
        case: Try this case of each row alone, again, and print what came of it.
    """
    left: list[tuple[float, int, Row]] = []  # the rows that take least come first
    for count, row in enumerate(rows):
        if case is not None:
            _try_again(row, place, results[row.group], case)
            continue
        names, started = row.chosen(is_quick=True), time.monotonic()
        _try(row, place, results[row.group], names)
        seconds = (time.monotonic() - started) / len(names)
        left.append((seconds * (len(row.cases) - len(names)), count, row))
    if not is_quick:
        for _, _, row in sorted(left):
            _try(row, place, results[row.group], row.cases)


def _try(row: Row, place: Workplace, results: Results, names: Sequence[str]) -> None:
    started, done = time.monotonic(), results.of(row.name)
    for name in names:
        if name not in done or done[name].outcome == "not run":
            results.add(row.name, _run(row, place, name))
    cases = [done[name] for name in names]
    sys.stdout.write(f"{summary(row, cases).line()}  ({time.monotonic() - started:.0f} s)\n")
    sys.stdout.flush()


def _try_again(row: Row, place: Workplace, results: Results, name: str) -> None:
    case = _run(row, place, name)
    results.add(row.name, case)
    sys.stdout.write(f"{case.name}: {case.outcome}. {case.detail}\nTold:\n{case.told}\n")


def _run(row: Row, place: Workplace, name: str) -> Case:
    assert place.prepared  # or else every case would fail for the same reason
    try:
        with time_limit():
            return row.run(place, name)
    except Hung as error:
        return Case(name, "hung", str(error))
    except Exception:
        return Case(name, "error", " ".join(traceback.format_exc().splitlines()[-3:]))
