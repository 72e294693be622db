"""What the user was told: the command's output and the log, and whether they account for what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

LOSS = re.compile(
    r"lost|damag|missing|refus|reject|dropp|unreadable|cannot|not sent|not all sent|set aside|skipp|left out|could not"
    r"|incomplete|not complete|not logged|ignored|no journal|not a journal|cut off|not taken|pending|out of range",
    re.IGNORECASE,
)
# Numbers that do not say how much is lost: what was sent, places, sizes, times, versions, error codes.
OTHERS = re.compile(
    r"sent, \d+ new entr\w+|\d+ journals? (?:is|are) not all sent|format \d+|\d+ (?:s|seconds|bytes|[KMG]B)\b"
    r"|(?:entry|line|byte|step) \d+|(?:entries|lines|steps) \d+-\d+|\[Errno \d+\]|HTTP \d+|status \d+"
)
WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
SHOWN = 160  # characters of what was told that the table shows


def losses(text: str) -> list[str]:
    """Return the lines that speak of a loss."""
    return [line for line in text.splitlines() if LOSS.search(line)]


def numbers(line: str) -> list[int]:
    """Return the numbers in a line that may say how much is lost."""
    words = (word.strip(".,;:()[]'\"").replace(",", "") for word in OTHERS.sub("", line).split())
    return [int(word) if word.isdigit() else WORDS[word] for word in words if word.isdigit() or word in WORDS]


def accounts_for(text: str, counts: set[int]) -> bool:
    """True if a line that speaks of a loss has one of these numbers, or the first numbers of all such lines make it."""
    found = [numbers(line) for line in losses(text)]
    return any(counts & set(line) for line in found) or sum(line[0] for line in found if line) in counts


def names(text: str, journal: str) -> bool:
    """True if a line that speaks of a loss names the journal."""
    return any(journal in line for line in losses(text))


def names_all(text: str, missing: Iterable[frozenset[tuple[str, ...]]]) -> bool:
    """True if the lines that speak of a loss name every missing artifact, parameter and tag; metrics are too many."""
    lines = " ".join(losses(text))
    items = [item for entry in missing for item in entry]
    return all(item[0] in ("artifact", "param", "tag") and Path(item[1]).stem in lines for item in items)


def shown(text: str) -> str:
    """Return the first line of a loss, or else the last line, cut to fit the table."""
    lines = losses(text) or text.strip().splitlines()[-1:] or ["nothing"]
    line = lines[0].replace("|", "/").strip()
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
