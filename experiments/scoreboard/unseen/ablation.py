"""Ablation: failing runs that were drawn by lot, under the default guard, under it without a part, and under others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra import compose

from experiments.corpus.scenarios import configs
from experiments.scoreboard.repair.scoring import REPAIRED
from experiments.scoreboard.repair.treating import trained
from experiments.scoreboard.repair.treatments import BARE, FAULTLESS, Treatment
from experiments.scoreboard.unseen.parts import Part, all_parts, rivals
from experiments.scoreboard.unseen.training import GUARDED, SCENARIO, UnseenRun


@dataclass(frozen=True)
class Ablated:
    """One run, and what it is trained with.

    Attributes:
        number: It was drawn by.
        folder: Of the outcomes.
        names: Of the parts and rivals that are looked at; empty for all.
    """

    number: int
    folder: Path
    names: Sequence[str] = ()

    @cached_property
    def run(self) -> UnseenRun:
        """The run."""
        return UnseenRun(self.number, self.folder)

    def quality(self, treatment: Treatment) -> float:
        """Quality, within 0 and 1; 0 where it is not finite."""
        quality = self.run.outcome(treatment).quality
        return min(1.0, max(0.0, quality)) if quality == quality else 0.0

    @property
    def is_broken(self) -> bool:
        """True if a fault has cost it more than a twentieth of its quality."""
        return self.run.has_fault and self.quality(BARE) < REPAIRED * self.quality(FAULTLESS)

    def share(self, treatment: Treatment, part: Part | None = None) -> float:
        """Quality as a share of the same run's without its fault; at most 1.

        A run is the same without a part that does not act in it, and under a remedy that no alert of it calls for.
        """
        if part is not None and self.is_same(part):
            treatment = GUARDED
        elif part is None and not treatment.may_act(self.run.outcome(GUARDED).alerted):
            treatment = BARE
        return min(1.0, self.quality(treatment) / self.quality(FAULTLESS))

    def is_same(self, part: Part) -> bool:
        """True if no remedy acts in it that the part belongs to."""
        return not part.may_change(self.run.outcome(GUARDED).remedies)


def train_bare(job: Ablated, conf: Path) -> None:
    """Train a run as it is, and without its fault."""
    _train(job, [(BARE, None), (FAULTLESS, None)], conf)


def train_treated(job: Ablated, conf: Path) -> None:
    """Train a run under the default guard, then without each part that may change it, then under the rivals."""
    _train(job, [(GUARDED, None)], conf)
    parts = [part for part in all_parts() if _is_chosen(part.name, job.names) and not job.is_same(part)]
    alerted = job.run.outcome(GUARDED).alerted
    others = [one for one in rivals(conf) if _is_chosen(one.name, job.names) and one.may_act(alerted)]
    _train(job, [*((part.treatment, part) for part in parts), *((other, None) for other in others)], conf)


def _is_chosen(name: str, names: Sequence[str]) -> bool:
    return not names or name in names


def _train(job: Ablated, treatments: Sequence[tuple[Treatment, Part | None]], conf: Path) -> None:
    with configs(conf):
        quietly = ["guard=none", "logger=none", "trainer.enable_progress_bar=false"]
        cfg = compose("config", overrides=[*job.run.settings, *quietly])
        for treatment, part in treatments:
            path = job.run.path(treatment)
            if path.exists():
                continue
            if part is None:
                trained(SCENARIO, job.number, treatment, cfg).write(path)
            else:
                with part.left_out():
                    trained(SCENARIO, job.number, treatment, cfg).write(path)
