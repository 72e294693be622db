"""The runs of the papers, each outcome in a file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose

from experiments.corpus import CONF, plugin_key
from experiments.corpus.scenarios import configs
from experiments.papers.base import Arm, Paper
from experiments.papers.catalogue import PAPERS
from experiments.scoreboard.repair.published import PUBLISHED
from experiments.syllabus.judging import Many
from experiments.syllabus.runs import Outcome, trained


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        paper: Its name.
        arm: Name of the paper's arm.
        seed: Its seed.
        path: The file of its outcome.
    """

    paper: str
    arm: str
    seed: int
    path: Path


def jobs(names: Iterable[str], seeds: Sequence[int], folder: Path) -> list[Job]:
    """Return all runs of some papers, seed by seed; a file is named by a key of config, arm and the plugin's code."""
    code = plugin_key()
    return [
        Job(name, arm, seed, folder / f"{name}-{arm.replace(' ', '_')}-{seed}-{_key(paper, told, code)}.json")
        for seed in seeds
        for name in names
        for paper in (PAPERS[name],)
        for arm, told in paper.arms.items()
    ]


def _key(paper: Paper, arm: Arm, code: str) -> str:
    config = (CONF / "experiment" / "papers" / f"{paper.config}.yaml").read_text()
    told = json.dumps([config, arm.overrides, arm.published, code])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def train(job: Job, conf: Path = CONF) -> None:
    """Train one run and write what came of it."""
    paper = PAPERS[job.paper]
    arm = paper.arms[job.arm]
    overrides = [f"experiment=papers/{paper.config}", f"seed={job.seed}", "logger=none", *arm.overrides]
    with configs(conf):
        cfg = compose("config", overrides=[*overrides, "trainer.enable_progress_bar=false"])
    published = [PUBLISHED[arm.published]()] if arm.published else []
    measures = [paper.measure()] if paper.measure else []
    trained(cfg, f"{job.paper}/{job.arm}", published, measures).write(job.path)


def collect(done: Iterable[Job]) -> dict[str, dict[str, Many]]:
    """Read the outcomes that are there, by paper and arm."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for job in done:
        if job.path.exists():
            found.setdefault(job.paper, {}).setdefault(job.arm, []).append(Outcome.read(job.path))
    return {paper: {arm: Many(runs) for arm, runs in arms.items()} for paper, arms in found.items()}
