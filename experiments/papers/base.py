"""What a reproduction is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from experiments.syllabus.judging import Many
from experiments.syllabus.runs import Measure

Found = Mapping[str, Many]  # what came of each arm, by its name


@dataclass(frozen=True)
class Arm:
    """One of the runs that a paper compares.

    Attributes:
        what: In words.
        overrides: Of the paper's config.
        published: The callback of another's remedy (see :data:`experiments.scoreboard.repair.published.PUBLISHED`).
    """

    what: str
    overrides: tuple[str, ...] = ()
    published: str = ""


@dataclass(frozen=True)
class Paper:
    """A result, and the setting in which it is looked for.

    Attributes:
        config: Name of the config in ``conf/experiment/papers``.
        source: Authors, year, place.
        claim: What it says.
        theirs: The paper's own figure, or "direction only".
        arms: What is compared, by name.
        direction: Whether the arms go the way the paper says.
        looked_for: That, in words.
        differs: Why our numbers differ from the paper's.
        shown: Name of the measure in the table; ``quality`` or one that the runs have measured.
        measure: Made for each run.
    """

    config: str
    source: str
    claim: str
    theirs: str
    arms: Mapping[str, Arm]
    direction: Callable[[Found], bool]
    looked_for: str
    differs: str
    shown: str = "quality"
    measure: type[Measure] | None = None

    def value(self, many: Many) -> float:
        """Return what the table shows of an arm: the median over the seeds."""
        return many.quality if self.shown == "quality" else many.middle(self.shown)
