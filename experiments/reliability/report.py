"""The results as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.bench import machine
from experiments.reliability import long_run
from experiments.reliability.cases import COMPLETE, SURVIVED, TOLD, Case, Row
from experiments.reliability.told import losses, numbers, shown

LISTED = 12  # failing cases per row that are listed
HEAD = """# Reliability

Written by `make reliability`: every fault is tried on real journals, processes, disks and MLflow servers.

A fault is *survived* if training went on and, after a later `grad-callbacks sync`, every metric is on the server once
and with its value, and parameters, tags, artifacts and status are right (*complete*); or if the user was told how many
entries are missing (*told*). A wrong number, a loss without a word, anything twice and any invented value count as
not survived. `--case` repeats a single try. An outage that is over when `sync` is called leaves nothing to tell.
"""


@dataclass(frozen=True)
class Summary:
    """The counts of a row."""

    row: Row
    outcomes: Counter[str]

    @property
    def tried(self) -> int:
        """How many cases were run."""
        return sum(self.outcomes.values()) - self.outcomes["not run"]

    @property
    def survived(self) -> int:
        """How many were survived."""
        return sum(self.outcomes[outcome] for outcome in SURVIVED)

    @property
    def is_survived(self) -> bool:
        """True if all were."""
        return self.survived == self.tried

    def line(self) -> str:
        """Return the counts as a line of text."""
        others = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return f"{self.row.name:34} tried {self.tried:4}, survived {self.survived:4}: {others}"


def summary(row: Row, cases: Sequence[Case]) -> Summary:
    """Count a row's outcomes."""
    return Summary(row, Counter(case.outcome for case in cases))


def markdown(rows: Sequence[tuple[Row, Sequence[Case]]], results: Path, is_quick: bool) -> str:
    """Return the whole document."""
    subset = "A part of the cases (`--subset quick`).\n\n" if is_quick else ""
    lines = ["| fault | what is done | tried | survived | complete | told | what the user reads, for example |"]
    lines.append("|---|---|---|---|---|---|---|")
    failing = []
    for row, cases in rows:
        counts = summary(row, cases)
        tried = f"{counts.tried} of {len(row.cases)}" if counts.tried else "not run"
        survived = f"{counts.survived}" if counts.is_survived else f"**{counts.survived}**"
        cells = [row.name, row.what, tried, survived, str(counts.outcomes[COMPLETE]), str(counts.outcomes[TOLD])]
        lines.append(f"| {' | '.join(cells)} | {_example(cases)} |")
        failing += _failing(row, cases)
    text = f"{HEAD}\n{machine.describe()}\n\n{subset}" + "\n".join(lines) + "\n\n## Not survived\n\n"
    text += "\n".join(failing) if failing else "Nothing."
    return f"{text.rstrip()}\n\n{long_run.section(results)}".rstrip() + "\n"


def _failing(row: Row, cases: Sequence[Case]) -> list[str]:
    bad = [case for case in cases if case.outcome not in (*SURVIVED, "not run")]
    if not bad:
        return []
    lines = [f"**{row.name}**: `python -m experiments.reliability --only '{row.name}' --case CASE`", ""]
    lines += [
        f"- `{case.name}`: {case.outcome}. {_clean(case.detail)} Told: {_clean(shown(case.told))}"
        for case in bad[:LISTED]
    ]
    if len(bad) > LISTED:
        lines.append(f"- and {len(bad) - LISTED} more: {', '.join(f'`{case.name}`' for case in bad[LISTED:])}")
    return [*lines, ""]


def _example(cases: Sequence[Case]) -> str:
    """Return a line that told a loss, with its number if there is one, or else that told of the fault."""
    texts = [case.told for outcome in (TOLD, COMPLETE) for case in cases if case.outcome == outcome]
    lines = [line for text in texts for line in losses(text)]
    return _clean(shown(next(filter(numbers, lines), lines[0]))) if lines else "nothing"


def _clean(text: str) -> str:
    """Leave out what differs from call to call: folders, ids, ports."""
    text = re.sub(r"\S*/reliability-[a-z0-9_]+(/\S*)?", "FOLDER", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "RUN", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    return text.replace("|", "/").replace("\n", " ").strip()
