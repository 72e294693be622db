"""Training: one run under one treatment, and what came of it."""

from __future__ import annotations

import hashlib
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from experiments.run import run
from experiments.scoreboard.language_model.results import Result
from experiments.scoreboard.language_model.treatments import TREATMENTS


@dataclass(frozen=True)
class Job:
    """A run that is missing.

    Attributes:
        setting: Name of the setting.
        seed: Its seed.
        treatment: Name of the treatment.
        config: The run before it is treated, as plain values.
        path: The file of its result.
    """

    setting: str
    seed: int
    treatment: str
    config: Mapping[str, Any]
    path: Path


class Course(Callback):
    """Notes how a run goes.

    Attributes:
        losses: See :class:`Result`; known once the run has ended.
        evaluations: See :class:`Result`.
        weights: See :class:`Result`.
        steps: Optimizer steps taken.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._losses: list[Tensor] = []
        self.evaluations: list[tuple[int, float]] = []
        self.weights = ""
        self.steps = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        factor: Any = getattr(pl_module, "loss_factor", 1.0)
        # Read at the end only: until then nothing waits for the device.
        self._losses.append(outputs["loss"].detach() / factor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the validation loss."""
        self.evaluations.append((trainer.global_step, float(trainer.callback_metrics["val/loss"])))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the weights."""
        self.losses = torch.stack(self._losses).tolist() if self._losses else []
        self.weights, self.steps = digest_of(pl_module), trainer.global_step


class Stop(Callback):
    """Ends a run at a step, and keeps a checkpoint.

    Args:
        step: The optimizer step.
        path: Of the checkpoint.
    """

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save, and stop."""
        if trainer.global_step >= self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def digest_of(module: torch.nn.Module) -> str:
    """Return the SHA-256 of all weights, bit by bit."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def train(job: Job, conf: Path) -> None:
    """Train what is missing, and write what came of it; an error of the training is part of that."""
    course, started = Course(), time.perf_counter()
    cfg = OmegaConf.create(dict(job.config))
    try:
        monitor = _trained(cfg, job, course)
    except Exception as error:  # whatever a treatment does to a training, or Lightning refuses
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        where = f"({Path(place.filename).name}:{place.lineno})"
        Result(job.setting, job.seed, job.treatment, error=f"{told} {where}").write(job.path)
        return
    Result(
        job.setting,
        job.seed,
        job.treatment,
        evaluations=course.evaluations,
        losses=course.losses,
        batches_a_step=len(course.losses) / max(1, course.steps),
        alerts=[(alert.step, alert.kind, alert.cause or "") for alert in monitor.alerts] if monitor else (),
        interventions=[(one.step, one.remedy) for one in getattr(monitor, "interventions", ())],
        outcome=getattr(monitor, "outcome", "") if monitor else "",
        weights=course.weights,
        seconds=time.perf_counter() - started,
    ).write(job.path)


def _trained(cfg: DictConfig, job: Job, course: Course) -> Any:
    """Train a run, in two parts where it is to be resumed; return the monitor, if there is one."""
    treatment = TREATMENTS[job.treatment]
    treated = treatment.apply(cfg)
    if treated.resume_at is None:
        return run(treated, callbacks=[*treatment.callbacks(), course]).monitor
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "stopped.ckpt"
        run(treated, callbacks=[*treatment.callbacks(), course, Stop(treated.resume_at, checkpoint)])
        return run(treated, callbacks=[*treatment.callbacks(), course], checkpoint=checkpoint).monitor
