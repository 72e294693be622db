"""Drawn runs: recorded once without a guard, each in a file of its own, and labelled by their outcomes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra import compose

from experiments.corpus import FAILS, Label, Recording, rules_key
from experiments.corpus.labels import HEALTHY
from experiments.corpus.recorder import Recorder
from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.scoreboard.unseen import modern
from experiments.scoreboard.unseen.drawing import draw

REACHED = 0.75  # quantile of the qualities of a problem's runs: what a run of it can reach
FEWEST = 4  # runs of a problem with which that is known


@dataclass(frozen=True)
class DrawnRun:
    """One drawn run and the file of its recording.

    Attributes:
        number: Even ones draw the nets of before, odd ones those of today (from ``modern.FIRST`` on).
        folder: Of the recordings.
    """

    number: int
    folder: Path

    @property
    def settings(self) -> list[str]:
        """Its settings, as Hydra takes them."""
        return draw(self.number + modern.FIRST if self.number % 2 else self.number)

    @property
    def problem(self) -> str:
        """What it learns: runs of one problem are compared with each other."""
        told = dict(setting.split("=", 1) for setting in self.settings)
        return f"{told.get('task', 'classifier')} of {told.get('data', 'digits')}"

    @property
    def path(self) -> Path:
        """The file of its recording: another one where its settings have changed."""
        key = hashlib.sha256(json.dumps(self.settings).encode()).hexdigest()[:12]
        return self.folder / f"drawn-{self.number}-{key}.npz"


def record(drawn: DrawnRun, conf: Path) -> None:
    """Train a run and write its recording; one that cannot be trained leaves a file that says why."""
    with configs(conf):
        quietly = ["guard=none", "logger=none", "trainer.enable_progress_bar=false"]
        cfg = compose("config", overrides=[*drawn.settings, *quietly])
        recorder, started = Recorder(), time.monotonic()
        try:
            result = run(cfg, callbacks=[recorder.monitor, recorder])
        except Exception as error:  # whatever a drawn setting does to a training
            drawn.path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}\n")
            return
        seconds = time.monotonic() - started
        recorder.recording("drawn", drawn.number, result.quality, seconds, rules_key()).write(drawn.path)


def missing(runs: Sequence[DrawnRun]) -> list[DrawnRun]:
    """Return those that were not trained yet."""
    return [one for one in runs if not one.path.exists() and not one.path.with_suffix(".error").exists()]


def labels(runs: Sequence[DrawnRun], recordings: Mapping[int, Recording]) -> dict[int, Label]:
    """Label runs by their final quality, as the corpus does (:func:`experiments.corpus.label_runs`).

    A drawn run has no twin that is known to be healthy. What it can reach is the upper quartile of all recorded runs
    of its problem; a problem with fewer than four runs is left out.

    Args:
        runs: The runs.
        recordings: By number.
    """
    qualities = defaultdict(list)
    for one in runs:
        if one.number in recordings:
            quality = recordings[one.number].quality
            qualities[one.problem].append(quality if math.isfinite(quality) else 0.0)
    reached = {problem: float(np.quantile(all_, REACHED)) for problem, all_ in qualities.items() if len(all_) >= FEWEST}
    found: dict[int, Label] = {}
    for one in runs:
        if one.number not in recordings or not reached.get(one.problem, 0.0) > 0:
            continue
        share = recordings[one.number].quality / reached[one.problem]
        found[one.number] = "healthy" if share >= HEALTHY else "unsettled" if share >= FAILS else "failing"
    return found
