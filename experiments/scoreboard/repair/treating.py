"""Treating: a run that is missing under some treatments, each outcome in a file of its own."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from experiments.corpus import CONF, Recording
from experiments.corpus.scenarios import compose_run, configs
from experiments.run import run
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.treatments import BARE, UNGUARDED, Treatment


@dataclass(frozen=True)
class Job:
    """One scenario with one seed, and the treatments whose outcomes are missing.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        due: The treatments, each with the file of its outcome.
        is_timed: Train it without any treatment first, in the same process, to compare the times.
    """

    scenario: str
    seed: int
    due: Sequence[tuple[Treatment, Path]]
    is_timed: bool = False


class Stopwatch(Callback):
    """Times a training, without what comes before and after.

    Attributes:
        seconds: The time from its start to its end; NaN if it has not ended.
    """

    def __init__(self) -> None:
        self.seconds = math.nan
        self._started = math.nan

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._started


def treat(job: Job, conf: Path = CONF) -> None:
    """Train one scenario with one seed under all treatments that are due, and write what came of each."""
    with configs(conf):
        cfg = compose_run(job.scenario, job.seed)
        bare = trained(job.scenario, job.seed, BARE, cfg).seconds if job.is_timed else math.nan
        for treatment, path in job.due:
            trained(job.scenario, job.seed, treatment, cfg, bare).write(path)
            for outdated in set(path.parent.glob(f"{job.scenario}-{job.seed}-{treatment.name}-*.json")) - {path}:
                outdated.unlink()


def trained(scenario: str, seed: int, treatment: Treatment, cfg: DictConfig, bare: float = math.nan) -> Outcome:
    """Train one run under a treatment, and return what came of it; an error of the training is part of that.

    Args:
        scenario: Name of the scenario.
        seed: Its seed.
        treatment: The treatment.
        cfg: The config of the unguarded run.
        bare: Seconds of the same training without any treatment.
    """
    stopwatch = Stopwatch()
    try:
        result = run(treatment.apply(cfg), callbacks=[*treatment.callbacks(), stopwatch])
    except Exception as error:  # whatever a remedy does to a training, or Lightning refuses
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = (
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({Path(place.filename).name}:{place.lineno})"
        )
        return Outcome(scenario, seed, treatment.name, math.nan, error=told)
    guard: Any = result.monitor
    return Outcome(
        scenario=scenario,
        seed=seed,
        treatment=treatment.name,
        quality=result.quality,
        seconds=stopwatch.seconds,
        bare_seconds=bare,
        alerted=tuple(dict.fromkeys(alert.kind for alert in guard.alerts)) if guard else (),
        remedies=tuple(made.remedy for made in getattr(guard, "interventions", ())),
    )


def from_recording(path: Path, present: str) -> Outcome | None:
    """Return the unguarded run's outcome as recorded for ``detect``; None if it was not, or with other code.

    Args:
        path: The recording.
        present: Key of the present code (see :func:`experiments.corpus.rules_key`).
    """
    if not path.exists():
        return None
    recording = Recording.read(path)
    if recording.rules_key != present:
        return None
    kinds = tuple(dict.fromkeys(alert.kind for alert in recording.alerts))
    return Outcome(recording.scenario, recording.seed, UNGUARDED, recording.quality, alerted=kinds)
