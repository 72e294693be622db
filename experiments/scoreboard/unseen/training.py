"""Training: an unseen run without the guard, without its fault and with the guard; each outcome is a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose

from experiments.corpus.scenarios import configs
from experiments.scoreboard.repair.outcomes import Outcome
from experiments.scoreboard.repair.treating import trained
from experiments.scoreboard.repair.treatments import FAULTLESS, OURS, WATCHED, Treatment
from experiments.scoreboard.unseen.drawing import draw

SCENARIO = "unseen"
GUARDED = Treatment(OURS, "GradientGuard() with its defaults.", {"_target_": "grad_callbacks.GradientGuard"})


@dataclass(frozen=True)
class UnseenRun:
    """One unseen run and the files of its outcomes.

    Attributes:
        number: It was drawn by (see :func:`~experiments.scoreboard.unseen.drawing.draw`).
        folder: Of the outcomes.
    """

    number: int
    folder: Path

    @property
    def settings(self) -> Sequence[str]:
        """Its settings."""
        return draw(self.number)

    @property
    def has_fault(self) -> bool:
        """True if somebody breaks it in mid-run."""
        return any(setting.startswith("fault=") for setting in self.settings)

    @property
    def treatments(self) -> Sequence[Treatment]:
        """With what it is trained."""
        return [WATCHED, GUARDED, *([FAULTLESS] if self.has_fault else [])]

    def path(self, treatment: Treatment) -> Path:
        """The file of an outcome: another one where the settings, the treatment or the plugin's code have changed."""
        key = hashlib.sha256(json.dumps([self.settings, treatment.key()]).encode()).hexdigest()[:12]
        return self.folder / f"{SCENARIO}-{self.number}-{treatment.name}-{key}.json"

    def outcome(self, treatment: Treatment) -> Outcome:
        """Read what came of it."""
        return Outcome.read(self.path(treatment))


def train(run: UnseenRun, conf: Path) -> None:
    """Train what is missing of a run, and write what came of it."""
    with configs(conf):
        quietly = ["guard=none", "logger=none", "trainer.enable_progress_bar=false"]
        cfg = compose("config", overrides=[*run.settings, *quietly])
        for treatment in run.treatments:
            path = run.path(treatment)
            if not path.exists():
                trained(SCENARIO, run.number, treatment, cfg).write(path)
