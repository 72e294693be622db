"""GPT-2 with 124 million weights under each treatment, at the usual rate and three times that.

``python -m experiments.pretrain`` needs a GPU; ``--size tiny --device cpu`` takes some seconds anywhere.
It writes one JSON file a run (a run that has its file is not trained again), ``pretrain.md`` and ``pretrain.png``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported

import torch
from hydra import compose
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from omegaconf import DictConfig

from experiments.corpus.scenarios import configs
from experiments.corpus.workers import quiet
from experiments.run import run
from experiments.scoreboard.language_model.training import Course
from experiments.scoreboard.language_model.treatments import BOTH, CLIP, NONE, OURS, TREATMENTS

DEFAULT = (NONE, CLIP, "zclip", OURS, BOTH)
FACTORS = (1.0, 3.0)  # of the usual rate
UNTIMED = 20  # steps in which an accelerator still chooses its kernels
SIZES: dict[str, Sequence[str]] = {
    "gpt2": (),
    "tiny": (
        "model.depth=2",
        "model.width=32",
        "model.heads=2",
        "data.vocabulary=512",
        "data.limit=20000",
        "data.context=16",
        "data.batch_size=4",
        "data.steps=60",
        "schedule.rise=10",
        "schedule.start=0.1",
        "trainer.max_steps=60",
        "trainer.val_check_interval=30",
    ),
}


@dataclass(frozen=True)
class Pretrained:
    """What came of one run.

    Attributes:
        treatment: Name of the treatment.
        factor: Of the usual rate.
        nats: Last validation loss, in nats a token.
        milliseconds: Of a step, without validation.
        losses: Training losses.
        alerts: Step and kind of each alert.
        remedies: Step and name of each remedy.
        outcome: As the guard tells it; empty without one.
        error: Why it could not be trained; empty if it could.
    """

    treatment: str
    factor: float
    nats: float | None = None
    milliseconds: float | None = None
    losses: Sequence[float | None] = ()
    alerts: Sequence[Sequence[Any]] = ()
    remedies: Sequence[Sequence[Any]] = ()
    outcome: str = ""
    error: str = ""


class TimedCourse(Course):
    """Notes how a run goes, and how long its steps take: the device is waited for around validations only."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.timed = 0
        self._since: float | None = None
        self._count = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock, after the first steps and after a validation."""
        if self._since is None and self._count >= min(UNTIMED, trainer.max_steps // 2):
            self._since = _now(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._count += 1
        self.timed += self._since is not None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        if self._since is not None:
            self.seconds += _now(pl_module) - self._since
            self._since = None

    @property
    def milliseconds(self) -> float:
        """Of a step."""
        return 1000 * self.seconds / self.timed if self.timed else math.nan


def _now(module: LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, write all, and return the exit status: 1 if a run could not be trained."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pretrain", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="gpt2", help="default: %(default)s")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--treatments", nargs="+", default=list(DEFAULT), choices=tuple(TREATMENTS), metavar="NAME")
    parser.add_argument("--rates", nargs="+", default=list(FACTORS), type=float, metavar="FACTOR", help="of the usual")
    parser.add_argument("--folder", type=Path, default=Path("pretrained"), help="of results (default: %(default)s)")
    options = parser.parse_args(arguments)
    quiet()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for factor in options.rates:
        for name in options.treatments:
            path = options.folder / f"{options.size}-{name}-x{factor:g}.json"
            if not path.exists():
                path.write_text(json.dumps(asdict(_trained(options.size, options.device, name, factor))))
            runs.append(Pretrained(**json.loads(path.read_text())))
            sys.stdout.write(f"{_line(runs[-1])}\n")
            sys.stdout.flush()
    (options.folder / "pretrain.md").write_text(table(runs, f"{options.size} on {options.device}"))
    picture(runs).savefig(options.folder / "pretrain.png", dpi=120)
    return 1 if any(one.error for one in runs) else 0


def composed(size: str, device: str, factor: float) -> DictConfig:
    """Compose a run before it is treated."""
    accelerator = "gpu" if device == "cuda" else "cpu"
    overrides = ["experiment=pretrain", "guard=none", "logger=none", "trainer.enable_progress_bar=false", *SIZES[size]]
    with configs():
        cfg = compose("config", overrides=[*overrides, f"trainer.accelerator={accelerator}", "+trainer.devices=1"])
    cfg.optimizer.lr *= factor
    return cfg


def _trained(size: str, device: str, name: str, factor: float) -> Pretrained:
    course, treatment = TimedCourse(), TREATMENTS[name]
    try:
        treated = treatment.apply(composed(size, device, factor))
        monitor: Any = run(treated, callbacks=[*treatment.callbacks(), course]).monitor
    except Exception as error:  # whatever a treatment does to a training; the other runs go on
        return Pretrained(name, factor, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()
    return Pretrained(
        name,
        factor,
        _finite(course.evaluations[-1][1]),
        _finite(course.milliseconds),
        [_finite(loss) for loss in course.losses],
        [(alert.step, alert.kind) for alert in monitor.alerts] if monitor else (),
        [(one.step, one.remedy) for one in getattr(monitor, "interventions", ())],
        str(getattr(monitor, "outcome", "")) if monitor else "",
    )


def table(runs: Sequence[Pretrained], title: str) -> str:
    """Return the table in markdown; the cost of a step is that beside the same rate's run without treatment."""
    bare = {one.factor: one.milliseconds for one in runs if one.treatment == NONE}
    lines = [
        f"# Pre-training: {title}",
        "",
        "| rate | treatment | nats a token | ms a step | beside none | alerts | remedies | outcome |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in runs:
        base, mine = bare.get(one.factor), one.milliseconds
        ratio = "–" if base is None or mine is None else f"{mine / base - 1:+.1%}"
        alerts = ", ".join(f"{kind} {step}" for step, kind in one.alerts[:4]) or "–"
        remedies = ", ".join(f"{name} {step}" for step, name in one.remedies[:4]) or "–"
        told = one.error or one.outcome or "–"
        cells = [f"×{one.factor:g}", f"`{one.treatment}`", _number(one.nats, ".3f"), _number(mine, ".1f"), ratio]
        lines.append("| " + " | ".join([*cells, alerts, remedies, told]) + " |")
    return "\n".join(lines) + "\n"


def picture(runs: Sequence[Pretrained]) -> Figure:
    """Draw the training losses, a panel for each rate."""
    factors = list(dict.fromkeys(one.factor for one in runs))
    figure = Figure(figsize=(6 * len(factors), 4.2), layout="constrained")
    panels = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
    for axes, factor in zip(panels, factors, strict=True):
        for one in runs:
            if one.factor == factor and one.losses:
                axes.plot([math.nan if loss is None else loss for loss in one.losses], label=one.treatment, linewidth=1)
        axes.set_title(f"{factor:g} times the usual rate", fontsize=10)
        axes.set(xlabel="step", ylabel="training loss in nats a token")
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _line(one: Pretrained) -> str:
    what: Mapping[str, str] = {"nats": _number(one.nats, ".3f"), "ms": _number(one.milliseconds, ".1f")}
    told = one.error or f"{what['nats']} nats, {what['ms']} ms a step, {len(one.alerts)} alerts {one.outcome}".rstrip()
    return f"x{one.factor:g} {one.treatment}: {told}"


def _number(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
