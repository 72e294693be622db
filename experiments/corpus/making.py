"""Making recordings: what is missing, over several processes, each file on its own so that nothing is done twice."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import grad_callbacks
from experiments.corpus.recorder import Recorder
from experiments.corpus.recording import FORMAT, Recording
from experiments.corpus.scenarios import CONF, Scenario, compose_run, configs
from experiments.corpus.workers import pool
from experiments.run import run
from grad_callbacks import Reading

_IRRELEVANT = ("expects", "guard", "logger", "variant", "hydra")  # of the config: they do not change the run


@dataclass(frozen=True)
class Job:
    """One run to be recorded.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        path: The file of its recording.
    """

    scenario: str
    seed: int
    path: Path


def describe(scenarios: Iterable[Scenario], seeds: Sequence[int], folder: Path, conf: Path = CONF) -> list[Job]:
    """Return the runs of scenarios and seeds with their files, whether these are there or not.

    A file is named by scenario, seed and a key (see :func:`key_of`): a changed config makes a new file.

    Raises:
        ValueError: If the config of a scenario cannot be composed.
    """
    jobs = []
    with configs(conf):
        for scenario in scenarios:
            cfg = _composed(scenario.name)
            for seed in seeds:
                cfg.seed = seed  # composing is dear
                jobs.append(Job(scenario.name, seed, folder / f"{scenario.name}-{seed}-{key_of(cfg)}.npz"))
    return jobs


def _composed(name: str) -> DictConfig:
    try:
        return compose_run(name, 0)
    except (HydraException, OmegaConfBaseException) as error:
        told = " ".join(str(error).split()).split(" Config search path")[0]
        raise ValueError(f"corpus/{name}: {told}") from error


def key_of(cfg: DictConfig) -> str:
    """Return a key of all that decides how a run goes and what of it is recorded.

    That is the resolved config with its seed, the source of each file of ``experiments/`` that the config names, the
    format of a recording, and the names of what a reading holds. It is not the code of ``grad_callbacks``: rules may
    change and be judged on the same recordings. Delete the recordings (or pass ``--fresh``) when *how* something is
    measured has changed, or when causes are to be scored after the diagnosis has changed: they are the live monitor's.
    """
    kept = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name not in _IRRELEVANT])
    plain = OmegaConf.to_container(kept, resolve=True)
    sources = sorted({_source(target) for target in _targets(plain)} - {""})
    told = [FORMAT, plain, sources, [field.name for field in fields(Reading)]]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield str(config["_target_"])
        for value in config.values():
            yield from _targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from _targets(value)


def _source(target: str) -> str:
    if not target.startswith("experiments."):
        return ""
    module, _, attribute = target.rpartition(".")
    found = getattr(import_module(module), attribute)
    return Path(inspect.getsourcefile(found) or "").read_text()


def missing(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs whose recording is not there yet."""
    return [job for job in jobs if not job.path.exists()]


def record_all(
    jobs: Sequence[Job],
    workers: int = 2,
    conf: Path = CONF,
    on_done: Callable[[Job, str | None], object] | None = None,
) -> dict[str, str]:
    """Record each of ``jobs``.

    Args:
        jobs: The runs.
        workers: Processes, each with one thread; 1 is this process.
        conf: The folder of the configs.
        on_done: Called after each run with the job and, if it has crashed, its error.

    Returns:
        The error of each run that crashed, by name.
    """
    failures = {}
    for job, error in _recorded(jobs, workers, conf):
        if error is not None:
            failures[f"{job.scenario}/{job.seed}"] = error
        if on_done is not None:
            on_done(job, error)
    return failures


def _recorded(jobs: Sequence[Job], workers: int, conf: Path) -> Iterator[tuple[Job, str | None]]:
    if workers == 1:
        torch.set_num_threads(1)
        for job in jobs:
            yield job, _record(job, conf)
        return
    with pool(workers) as processes:
        waiting = {processes.submit(_record, job, conf): job for job in jobs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], _error_of(future)
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def _error_of(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:  # and with it the runs that were still waiting
        return "a process was killed, perhaps for want of memory: the same command goes on from here"


def _record(job: Job, conf: Path) -> str | None:
    try:
        with configs(conf):
            recording = make_recording(job.scenario, job.seed)
        recording.write(job.path)
        for outdated in set(job.path.parent.glob(f"{job.scenario}-{job.seed}-*.npz")) - {job.path}:
            outdated.unlink()  # of an earlier config
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = " ".join(str(error).split()) or type(error).__name__
        return f"{type(error).__name__}: {told[:300]} ({Path(place.filename).name}:{place.lineno})"
    return None


def make_recording(scenario: str, seed: int) -> Recording:
    """Train one run and return its recording; inside :func:`experiments.corpus.scenarios.configs`."""
    recorder = Recorder()
    started = time.monotonic()
    result = run(compose_run(scenario, seed), callbacks=[recorder.monitor, recorder])
    seconds = time.monotonic() - started
    return recorder.recording(scenario, seed, result.quality, seconds, rules_key())


def rules_key() -> str:
    """Return a key of the code that measures, raises alerts and names causes."""
    return _key(["events.py", "_utils", "measurement", "detection", "engine"])


def plugin_key() -> str:
    """Return a key of all code that changes or judges a training: everything in ``grad_callbacks`` but tracking."""
    return _key([path.name for path in _plugin().iterdir() if path.name != "tracking"])


def _key(names: Iterable[str]) -> str:
    paths = [_plugin() / name for name in names]
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _plugin() -> Path:
    return Path(inspect.getsourcefile(grad_callbacks) or "").parent
