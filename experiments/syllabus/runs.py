"""One training of the syllabus, and the file with what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from lightning.pytorch import Callback
from omegaconf import DictConfig

from experiments.corpus import CONF, plugin_key
from experiments.corpus.scenarios import configs
from experiments.run import run
from experiments.scoreboard.repair.published import PUBLISHED
from experiments.syllabus.claims import Setting
from experiments.syllabus.course import Course
from experiments.syllabus.cures import CURES
from experiments.syllabus.problems import PROBLEMS

MEASURES = ("course.py", "profile.py", "theory.py")  # files whose change makes all outcomes outdated


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        setting: Name of what was trained.
        seed: Its seed.
        quality: At its end; 0 if it is not finite.
        verdict: The monitor's.
        outcome: The guard's, or the monitor's.
        alert: Kind, step and cause of the first alert; empty if there was none.
        remedies: Names of what the guard applied, each once.
        measured: See :meth:`experiments.syllabus.course.Course.measured`.
        seconds: How long it took.
        rounding: The processor's instructions that torch used: an outcome near a limit depends on them.
    """

    setting: str
    seed: int
    quality: float
    verdict: str
    outcome: str
    alert: dict[str, Any] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    seconds: float = math.nan
    rounding: str = ""

    def write(self, path: Path) -> None:
        """Write it; a reader sees the whole file or none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Read it."""
        plain = json.loads(path.read_text())
        return cls(**{**plain, "remedies": tuple(plain["remedies"])})


class Measure(Callback):
    """Measures a run and changes nothing."""

    def measured(self) -> dict[str, Any]:
        """Return what was measured, as plain numbers by name."""
        raise NotImplementedError


@dataclass(frozen=True)
class Job:
    """A run that is missing.

    Attributes:
        setting: What to train.
        seed: Its seed.
        path: The file of its outcome.
    """

    setting: Setting
    seed: int
    path: Path


def jobs(settings: Iterable[Setting], seeds: Sequence[int], folder: Path, conf: Path = CONF) -> list[Job]:
    """Return all runs, seed by seed, each with its file: named by setting, seed and a key of what decides how it goes.

    The key is of the plugin's code, the measures' and the configs: where one has changed, it is another file.
    """
    groups = "".join(file.read_text() for file in sorted(conf.glob("*/*.yaml")) if file.parent.name != "experiment")
    code = plugin_key() + "".join((Path(__file__).parent / name).read_text() for name in MEASURES) + groups
    keys = {}
    for setting in settings:
        problem = (conf / "experiment" / "syllabus" / f"{setting.problem}.yaml").read_text()
        cures = [(CURES[name].rate, CURES[name].published) for name in setting.cures]
        told = json.dumps([problem, _overrides(setting), cures, code])
        keys[setting] = hashlib.sha256(told.encode()).hexdigest()[:12]
    return [
        Job(setting, seed, folder / f"{setting.name}-{seed}-{key}.json")
        for seed in seeds
        for setting, key in keys.items()
    ]


def composed(setting: Setting, seed: int) -> DictConfig:
    """Compose the config of a run; inside :func:`experiments.corpus.scenarios.configs`.

    Raises:
        ConfigError: If a cure makes no sense for the problem's net.
    """
    cfg = compose("config", overrides=[*_overrides(setting), f"seed={seed}"])
    for name in setting.cures:
        cfg.optimizer.lr *= CURES[name].rate
    return cfg


def _overrides(setting: Setting) -> list[str]:
    found = [f"experiment=syllabus/{setting.problem}", f"guard={setting.guard}", "logger=none"]
    found += [f"biases={str(setting.biases).lower()}", "trainer.enable_progress_bar=false"]
    found += [f"variant={'+'.join(setting.cures) or 'plain'}"]
    for name in setting.cures:
        found += CURES[name].overrides(PROBLEMS[setting.problem])
    return found


def train(job: Job, conf: Path = CONF) -> None:
    """Train one run and write what came of it."""
    with configs(conf):
        cfg = composed(job.setting, job.seed)
    published = [PUBLISHED[CURES[name].published]() for name in job.setting.cures if CURES[name].published]
    trained(cfg, job.setting.name, published).write(job.path)


def trained(
    cfg: DictConfig, name: str, callbacks: Sequence[Callback] = (), measures: Sequence[Measure] = ()
) -> Outcome:
    """Train one run and return what came of it.

    Args:
        cfg: Its config, with a guard.
        name: Of its setting.
        callbacks: That change it, beside the guard.
        measures: Of it, beside :class:`Course`.
    """
    course, started = Course(), time.perf_counter()
    result = run(cfg, callbacks=[*callbacks, course, *measures])
    monitor: Any = result.monitor
    first = [{"kind": alert.kind, "step": alert.step, "cause": str(alert.cause)} for alert in monitor.alerts[:1]]
    return Outcome(
        setting=name,
        seed=int(cfg.seed),
        quality=result.quality if math.isfinite(result.quality) else 0.0,
        verdict=monitor.verdict,
        outcome=monitor.outcome,
        alert=first[0] if first else {},
        remedies=tuple(dict.fromkeys(made.remedy for made in getattr(monitor, "interventions", ()))),
        measured={key: value for one in (course, *measures) for key, value in one.measured().items()},
        seconds=time.perf_counter() - started,
        rounding=torch.backends.cpu.get_cpu_capability(),
    )
