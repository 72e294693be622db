"""Outcomes: what came of a run, one small file each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What came of one run under one treatment.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        treatment: Name of the treatment.
        quality: Final ``val/quality``; NaN if it is not finite.
        seconds: Time of the training; NaN if it was not trained, since the treatment does not touch it.
        bare_seconds: Time of the same training without any treatment, in the same process; NaN if it was not taken.
        alerted: Kinds of alert that were raised, in order of their coming.
        remedies: The remedies that were applied, in order.
        error: Why it could not be trained; empty if it could.
    """

    scenario: str
    seed: int
    treatment: str
    quality: float
    seconds: float = math.nan
    bare_seconds: float = math.nan
    alerted: Sequence[str] = ()
    remedies: Sequence[str] = ()
    error: str = ""

    @property
    def run(self) -> tuple[str, int]:
        """Scenario and seed."""
        return self.scenario, self.seed

    @property
    def time_ratio(self) -> float:
        """How many times as long it took as without the treatment; NaN if that is unknown."""
        return self.seconds / self.bare_seconds

    def as_treated(self, treatment: str) -> Outcome:
        """Return this outcome for a treatment that does not touch the run."""
        return replace(self, treatment=treatment, seconds=math.nan, bare_seconds=math.nan, remedies=())

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        told = {name: None if value != value else value for name, value in asdict(self).items()}
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(told))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Read :meth:`write`'s file."""
        told = json.loads(path.read_text())
        numbers = {
            name: math.nan if told[name] is None else told[name] for name in ("quality", "seconds", "bare_seconds")
        }
        return cls(**{**told, **numbers, "alerted": tuple(told["alerted"]), "remedies": tuple(told["remedies"])})
