"""At which readings what costs time is measured."""

from __future__ import annotations

from dataclasses import dataclass

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class ScheduleThresholds(Thresholds):
    """The readings at which updates, recurrence, attention, signal and error are measured."""

    first: int = threshold(
        3,
        "the first readings whose recurrence, signal and error are all measured",
        unit="readings",
        source="not measured",
    )
    updates: int = threshold(
        20, "the first readings whose updates are all measured", unit="readings", source="not measured"
    )
    interval: int = threshold(
        25,
        "later readings are measured at this interval, and signal and error at twice that: weights change slowly",
        unit="readings",
        source="not measured",
    )
    replayed: int = threshold(
        1000,
        "the same of a compiled model, after its first reading: each costs as much as a step",
        unit="readings",
        source="formula: a thousandth of the steps",
    )


SCHEDULE = ScheduleThresholds()
