"""docs/papers.md, from the results alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from experiments.papers.base import Found, Paper
from experiments.papers.catalogue import PAPERS
from experiments.syllabus.judging import Many
from experiments.syllabus.words import number, quality, table

HEAD = """# Papers

What others have found, in small settings: digits, short sequences, a small language model, one core. Written by
`python -m experiments.papers` from the runs, never by hand. Each paper's config is in `conf/experiment/papers/`; what
is looked for is in `experiments/papers/catalogue.py`. "Direction only" means that no figure of
the paper is quoted here: ours is another net on other data. Numbers are the median over the seeds, with their range.

"""


def report(results: Mapping[str, Found]) -> str:
    """Return the document, with those papers whose arms were all trained."""
    whole = {name: found for name, found in results.items() if set(found) == set(PAPERS[name].arms)}
    rows = [_row(PAPERS[name], found) for name, found in whole.items()]
    head = ["paper", "what it says", "theirs", "ours", "seeds", "looked for", "seen", "why they differ"]
    outcomes = [outcome for found in whole.values() for many in found.values() for outcome in many.outcomes]
    rounding = ", ".join(sorted({outcome.rounding for outcome in outcomes}))
    seen = sum(PAPERS[name].direction(found) for name, found in whole.items())
    version = torch.__version__.split("+")[0]
    about = f"{seen} of {len(whole)} directions are seen; {len(outcomes)} runs, torch {version}, "
    return HEAD + about + f"ATEN_CPU_CAPABILITY {rounding}.\n\n" + table(head, rows)


def _row(paper: Paper, found: Found) -> list[str]:
    ours = "; ".join(f"{arm.what} {_value(paper, found[name])}" for name, arm in paper.arms.items())
    seeds = {len(many.outcomes) for many in found.values()}
    seen = "yes" if paper.direction(found) else "**no**"
    told = [paper.source, paper.claim, paper.theirs, f"{paper.shown}: {ours}", "/".join(map(str, sorted(seeds)))]
    return [*told, paper.looked_for, seen, paper.differs]


def _value(paper: Paper, many: Many) -> str:
    if paper.shown == "quality":
        return quality(many)
    if paper.shown == "decay":
        return f"{number(many.middle('decay'))} ({number(many.middle('theory'))})"
    found = [float(outcome.measured[paper.shown]) for outcome in many.outcomes]
    span = "" if len(set(found)) == 1 else f" ({number(min(found))}–{number(max(found))})"
    return f"{number(paper.value(many))}{span}, verdict {many.verdicts}"
