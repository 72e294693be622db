"""For how many readings a rule waits, remembers and looks back."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class SpanThresholds(Thresholds):
    """The few spans of time that all rules share."""

    in_a_row: int = threshold(
        3,
        "readings in a row that show the same before it is told: one or two may be single batches",
        unit="readings",
        source="measured: 2, 3 and 5 in place of seven spans between 2 and 5 move alerts by three readings at most",
    )
    level: int = threshold(
        10,
        "readings that make a level, or a new one: no few outliers move their median",
        unit="readings",
        source="not measured",
    )
    recent: int = threshold(
        20,
        "readings in which a run is at its start, and in which an event shows its consequences",
        unit="readings",
        source="ScheduleThresholds.updates: so many updates are all measured",
    )
    stuck: int = threshold(
        80,
        "readings in which a run learns something, or is stuck",
        unit="readings",
        source="measured: networks that leave a plateau by themselves are seen by nothing below; above 100 readings a "
        "run is not begun again",
    )


SPANS = SpanThresholds()
