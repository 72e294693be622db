"""Results: what came of a run, one small file each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

LAST = 2  # evaluations whose mean is the result of a run


@dataclass(frozen=True)
class Result:
    """What came of one run.

    Attributes:
        setting: Name of the setting.
        seed: Its seed.
        treatment: Name of the treatment.
        evaluations: Validation losses in nats, each behind the step before it.
        losses: Training losses in nats, one per batch, without the factor of an outlier.
        batches_a_step: Batches of an optimizer step; 0.5 where two optimizers take their steps at each.
        alerts: Step, kind and cause of each alert.
        interventions: Step and remedy of each intervention.
        outcome: As the guard tells it; empty without one.
        weights: SHA-256 of the final weights.
        seconds: Of the training.
        error: Why it could not be trained; empty if it could.
    """

    setting: str
    seed: int
    treatment: str
    evaluations: Sequence[tuple[int, float]] = ()
    losses: Sequence[float] = ()
    batches_a_step: float = 1.0
    alerts: Sequence[tuple[int, str, str]] = ()
    interventions: Sequence[tuple[int, str]] = ()
    outcome: str = ""
    weights: str = ""
    seconds: float = math.nan
    error: str = ""

    @property
    def nats(self) -> float:
        """Mean validation loss of the last evaluations; NaN if one is not finite, or there is none."""
        last = [loss for _, loss in self.evaluations[-LAST:]]
        return fmean(last) if last else math.nan

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(_finite(asdict(self))))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read :meth:`write`'s file."""
        told = json.loads(path.read_text())
        told["evaluations"] = tuple((step, _number(loss)) for step, loss in told["evaluations"])
        told["losses"] = tuple(_number(loss) for loss in told["losses"])
        told["alerts"], told["interventions"] = (tuple(map(tuple, told[name])) for name in ("alerts", "interventions"))
        return cls(**{**told, "seconds": _number(told["seconds"])})


def _finite(value: Any) -> Any:
    """The same with None for what is no finite number: JSON has no other way to say it."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
