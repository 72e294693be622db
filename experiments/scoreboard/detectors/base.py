"""What a detector is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from experiments.corpus import Recording

ANY: tuple[str, ...] = ("exploding", "nonfinite")  # what a rule means that knows no difference between the two
APART = 20  # steps without an alarm after which the next one is another


@dataclass(frozen=True)
class Alarm:
    """What a detector says about a run.

    Attributes:
        step: ``trainer.global_step`` of what it was raised on.
        kinds: What it may mean: it is right if one of them is.
        cause: The likely cause; empty if the detector names none.
        rule: Which of the detector's rules raised it.
    """

    step: int
    kinds: tuple[str, ...]
    cause: str = ""
    rule: str = ""


class Detector(Protocol):
    """Judges a recording. It is pure, and can be sent to another process.

    Attributes:
        name: Unique among the detectors.
    """

    name: str

    @property
    def thresholds(self) -> dict[str, Any]:
        """Its limits, as plain values."""

    def alarms(self, recording: Recording) -> list[Alarm]:
        """Return its alarms, in the order of their steps."""


def in_order(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Return alarms in the order of their steps."""
    return sorted(alarms, key=lambda alarm: alarm.step)


def episodes(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Return the first alarm of each run of alarms less than 20 steps apart: so many times a user is disturbed."""
    kept: list[Alarm] = []
    last = -APART
    for alarm in alarms:
        if alarm.step - last >= APART:
            kept.append(alarm)
        last = alarm.step
    return kept
