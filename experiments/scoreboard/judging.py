"""Judging: every detector on every recording, over several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.corpus import Recording, lost_at, rules_key
from experiments.corpus.workers import pool
from experiments.scoreboard.detectors import Alarm, Detector

CHUNK = 4  # recordings that a process takes at once
FEW = 20


@dataclass(frozen=True)
class Judged:
    """What the detectors said about a run.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        quality: Final ``val/quality``.
        readings: Steps of all optimizers that were read.
        lost: Step from which on the loss never again gets near its best; None if it ends there.
        alarms: By the detector's name.
        is_stale: The live alerts, and so the causes, are those of other code than the present.
    """

    scenario: str
    seed: int
    quality: float
    readings: int
    lost: int | None
    alarms: dict[str, list[Alarm]]
    is_stale: bool = False


def judge(path: Path, detectors: Sequence[Detector], present: str = "") -> Judged:
    """Let detectors judge one recording.

    Args:
        path: The recording.
        detectors: The detectors.
        present: Key of the present code (see :func:`experiments.corpus.rules_key`).
    """
    recording = Recording.read(path)
    return Judged(
        scenario=recording.scenario,
        seed=recording.seed,
        quality=recording.quality,
        readings=recording.readings,
        lost=lost_at(*recording.step_losses()),
        alarms={detector.name: detector.alarms(recording) for detector in detectors},
        is_stale=recording.rules_key != present,
    )


def judge_all(
    paths: Sequence[Path],
    detectors: Sequence[Detector],
    workers: int = 2,
    on_done: Callable[[], object] | None = None,
) -> list[Judged]:
    """Let detectors judge recordings, in the order of ``paths``. Few are judged here: processes start slowly."""
    judged = []
    task = partial(judge, detectors=detectors, present=rules_key())
    with ExitStack() as stack:
        is_few = workers == 1 or len(paths) <= FEW
        found = map(task, paths) if is_few else stack.enter_context(pool(workers)).map(task, paths, chunksize=CHUNK)
        for one in found:
            judged.append(one)
            if on_done is not None:
                on_done()
    return judged
