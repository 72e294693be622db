"""The shelf: which outcome lies in which file, and which are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from experiments.corpus import describe, rules_key
from experiments.scoreboard.choosing import Choice
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.treating import Job, from_recording
from experiments.scoreboard.repair.treatments import WATCHED, Treatment

Run = tuple[str, int]


class Shelf:
    """Knows the outcomes there are.

    A file is named by scenario, seed, treatment and a key of all that decides how the run goes: where the scenario,
    the treatment or, for a guard, the plugin's code has changed, it is another file.

    Args:
        folder: Of the outcomes.
        recordings: Of recordings: unguarded runs are taken from there if they fit.
        choice: The runs.
    """

    def __init__(self, folder: Path, recordings: Path, choice: Choice) -> None:
        self._folder, self._first_seed = folder, choice.seeds[0]
        jobs = describe(choice.needed.values(), choice.seeds, recordings, choice.conf)
        self._recordings: dict[Run, Path] = {(job.scenario, job.seed): job.path for job in jobs}
        self._keys: dict[str, str] = {}

    @property
    def runs(self) -> Sequence[Run]:
        """Scenario and seed of all runs, the references' among them."""
        return list(self._recordings)

    @cached_property
    def _present(self) -> str:
        return rules_key()

    def untreated(self, run: Run) -> Outcome | None:
        """Return what came of a run without treatment; None if that is missing."""
        return self.outcome(run, WATCHED) or from_recording(self._recordings[run], self._present)

    def outcome(self, run: Run, treatment: Treatment) -> Outcome | None:
        """Return what came of a run; None if that is missing."""
        path = self._path(run, treatment)
        return Outcome.read(path) if path.exists() else None

    def job(self, run: Run, treatments: Iterable[Treatment]) -> Job | None:
        """Return what is missing of a run under ``treatments``; None if nothing is. The first seed is timed."""
        due = [(t, path) for t in treatments if not (path := self._path(run, t)).exists()]
        return Job(*run, due, is_timed=run[1] == self._first_seed and due[0][0] is not WATCHED) if due else None

    def _path(self, run: Run, treatment: Treatment) -> Path:
        if treatment.name not in self._keys:
            self._keys[treatment.name] = treatment.key()
        told = f"{self._recordings[run].stem}/{self._keys[treatment.name]}"
        key = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self._folder / f"{run[0]}-{run[1]}-{treatment.name}-{key}.json"
