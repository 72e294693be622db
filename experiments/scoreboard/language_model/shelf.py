"""The shelf: which result lies in which file, and which are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.corpus.making import key_of
from experiments.scoreboard.language_model import treatments
from experiments.scoreboard.language_model.results import Result
from experiments.scoreboard.language_model.settings import Setting
from experiments.scoreboard.language_model.training import Job
from experiments.scoreboard.repair.treatments import Treatment


class Shelf:
    """Knows the results there are.

    A file is named by treatment, seed and a key of all that decides how the run goes: its config with the code that
    this names, the treatment and, for a guard, the plugin's code. Where one has changed, it is another file. Twins that
    are the same are one run.

    Args:
        folder: Of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configs: dict[tuple[str, bool, int], str] = {}
        self._treatments = {one.name: one.key() for one in treatments.TREATMENTS.values()}

    def missing(self, settings: Sequence[Setting], chosen: Sequence[Treatment], seeds: Sequence[int]) -> list[Job]:
        """Return what is missing of settings under treatments, and of their twins; the comparisons come first."""
        due: dict[Path, Job] = {}
        for seed in seeds:
            for setting in settings:
                for treatment in chosen:
                    self._note(due, setting, setting.config, treatment.name, seed)
                self._note(due, setting, setting.twin, treatments.NONE, seed)
        return sorted(due.values(), key=lambda job: (job.seed, job.treatment != treatments.NONE))

    def result(self, setting: Setting, treatment: str, seed: int) -> Result | None:
        """Return what came of a setting; None if that is missing."""
        return _read(self._path(setting, setting.config, treatment, seed))

    def twin(self, setting: Setting, seed: int) -> Result | None:
        """Return what came of its unhurt twin; None if that is missing."""
        return _read(self._path(setting, setting.twin, treatments.NONE, seed))

    def _note(self, due: dict[Path, Job], setting: Setting, config: DictConfig, treatment: str, seed: int) -> None:
        path = self._path(setting, config, treatment, seed)
        if path in due or path.exists():
            return
        plain: Any = OmegaConf.to_container(_seeded(config, seed))
        due[path] = Job(setting.name, seed, treatment, plain, path)

    def _path(self, setting: Setting, config: DictConfig, treatment: str, seed: int) -> Path:
        place = (setting.name, config is setting.config, seed)
        if place not in self._configs:
            self._configs[place] = key_of(_seeded(config, seed))
        key = hashlib.sha256(f"{self._configs[place]}/{self._treatments[treatment]}".encode()).hexdigest()[:16]
        return self._folder / f"{treatment}-{seed}-{key}.json"


def _seeded(config: DictConfig, seed: int) -> DictConfig:
    seeded = config.copy()
    seeded.seed = seed
    return seeded


def _read(path: Path) -> Result | None:
    return Result.read(path) if path.exists() else None
