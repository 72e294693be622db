"""One short training, and what came of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks.callbacks._base import Callback
from grad_callbacks.doctor.inspection import Inspection, Inspector
from grad_callbacks.doctor.setup import Setup, Source
from grad_callbacks.events import leading

if TYPE_CHECKING:
    from grad_callbacks.doctor.cures.base import Cure
    from grad_callbacks.doctor.recording import Place

CURVE = 100  # points of the loss that a result keeps
FIRST, LAST = 5, 0.1  # losses that the first level is the median of; share of the steps that the last one is
FEWEST = 3  # finite losses among the last ones that tell something of a guarded training
VALIDATED = 20  # batches of a validation, where the training does not say


@dataclass(frozen=True)
class Order:
    """What is to be trained.

    Attributes:
        cures: Are applied in this order; none for the training as it is.
        seed: Of all random numbers.
        steps: Optimizer steps at most.
        seconds: Training time at most.
    """

    cures: tuple[Cure, ...] = ()
    seed: int = 0
    steps: int = 300
    seconds: float = 600.0

    @property
    def name(self) -> str:
        """The names of the cures."""
        return " + ".join(cure.name for cure in self.cures) or "unchanged"


@dataclass
class Attempt:
    """What came of a training.

    Attributes:
        name: The cures.
        seed: As ordered.
        steps: Optimizer steps that were made.
        lines: What was changed, as lines of code.
        verdict: The monitor's.
        outcome: The monitor's.
        kind: The kind of the leading alert; "" without one.
        cause: Its cause.
        message: What was seen.
        advice: What it says to change.
        alerts: How many there were.
        has_critical: One of them was critical.
        is_bounded: Large gradients were kept from the weights.
        is_guarded: A guard has watched it, and treated what it found.
        evidence: Numbers of the leading alert.
        norm: The usual norm of the gradients before the first alert; NaN if unknown.
        began: The loss at the start.
        ended: The loss at the end; where it was not finite, that of the validation if it is logged; or NaN.
        curve: The loss over the steps, thinned.
        metrics: What the module has logged, at the end.
        seconds: It took.
        error: What the training raised; "" for nothing.
        run_id: The MLflow run.
        inspection: What the first step showed.
    """

    name: str
    seed: int
    steps: int = 0
    lines: list[str] = field(default_factory=list)
    verdict: str = "not measured"
    outcome: str = "not measured"
    kind: str = ""
    cause: str = ""
    message: str = ""
    advice: str = ""
    alerts: int = 0
    has_critical: bool = False
    is_bounded: bool = False
    is_guarded: bool = False
    evidence: dict[str, float] = field(default_factory=dict)
    norm: float = math.nan
    began: float = math.nan
    ended: float = math.nan
    curve: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    run_id: str = ""
    inspection: Inspection = field(default_factory=Inspection)

    def to_json(self) -> str:
        """Return the text of a file."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Attempt:
        """Rebuild from :meth:`to_json`."""
        data = json.loads(text)
        return cls(**{**data, "inspection": Inspection.from_dict(data["inspection"])})


class Losses(Callback):
    """Keeps the loss of every batch."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.validated = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Note the loss, if ``training_step`` has returned one."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.values.append(float(loss.detach()))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that there was a validation."""
        self.validated = self.validated or not trainer.sanity_checking


def carry_out(source: Source, order: Order, known: Inspection, place: Place | None = None) -> Attempt:
    """Make the training anew, apply the cures and train.

    Args:
        source: Makes the training.
        order: What is to be trained.
        known: What the first step of the training as it is has shown.
        place: Where the run is logged, if anywhere.

    Raises:
        ValueError: If the training cannot be made.
    """
    started = time.monotonic()
    setup = source.make(order.seed)
    attempt = Attempt(order.name, order.seed)
    for cure in order.cures:
        attempt.lines += cure.apply(setup, known)
    losses, inspector = Losses(), Inspector()
    shown: dict[str, Any] = {"progress_bar": False, "summary": False}
    watch = GradientMonitor(**shown) if setup.guard is None else GradientGuard(**setup.guard, **shown)
    logger = None if place is None else place.child(order.name, order.seed)
    trainer = _trainer(setup, order, [*setup.callbacks, losses, inspector, watch], logger)
    try:
        trainer.fit(setup.module, **setup.data_arguments)
        attempt.metrics = _metrics(trainer)
        if not losses.validated and trainer.val_dataloaders is not None:
            trainer.validate(setup.module, verbose=False, **_validated(setup))
            attempt.metrics |= _metrics(trainer)
    except Exception as error:  # the user's code, or what it comes to with wrong numbers
        attempt.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    finally:
        if logger is not None:
            attempt.run_id = str(logger.run_id)
            logger.close()
    attempt.steps, attempt.inspection = trainer.global_step, inspector.found
    attempt.is_bounded, attempt.is_guarded = setup.bounds_steps, setup.guard is not None
    _read(attempt, watch, losses.values)
    attempt.seconds = round(time.monotonic() - started, 2)
    return attempt


def _trainer(setup: Setup, order: Order, callbacks: Sequence[Any], logger: Any) -> Any:
    settings = {
        "max_epochs": -1,
        "max_steps": order.steps,
        "max_time": timedelta(seconds=max(1.0, order.seconds)),
        "devices": 1,
        "limit_val_batches": VALIDATED,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 5,
        **setup.trainer,
    }
    return trainer_class(setup.module)(logger=logger or False, callbacks=list(callbacks), **settings)


def trainer_class(module: object) -> Any:
    """The Trainer that goes with a module: Lightning has two names."""
    from grad_callbacks._utils.lightning import LightningModule, Trainer

    if isinstance(module, LightningModule):
        return Trainer
    from pytorch_lightning import Trainer as Other

    return Other


def _validated(setup: Setup) -> dict[str, Any]:
    given = setup.data_arguments
    return (
        {"datamodule": given["datamodule"]} if "datamodule" in given else {"dataloaders": given.get("val_dataloaders")}
    )


def _metrics(trainer: Any) -> dict[str, float]:
    return {str(name): float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("grad/")}


def _read(attempt: Attempt, watch: GradientMonitor, losses: list[float]) -> None:
    attempt.verdict, attempt.outcome = watch.verdict, watch.outcome
    attempt.alerts = len(watch.alerts)
    attempt.has_critical = any(alert.severity == "critical" for alert in watch.alerts)
    first = watch.alerts[0].step if watch.alerts else math.inf
    norms = [norm for step, norm in watch.step_series.norms() if step < first and math.isfinite(norm)]
    attempt.norm = median(norms) if norms else math.nan
    if watch.alerts:
        told = leading(watch.alerts)
        attempt.kind, attempt.cause, attempt.message, attempt.advice = told.kind, told.cause, told.message, told.advice
        attempt.evidence = {name: float(value) for name, value in told.evidence.items()}
    if losses:
        finite = [loss for loss in losses if math.isfinite(loss)]
        last = losses[-max(FIRST, int(LAST * len(losses))) :]
        attempt.began = median(finite[:FIRST]) if finite else math.nan
        settled = [loss for loss in last if math.isfinite(loss)]
        # Where a remedy skips what is undefined, the other losses tell what was learned; or a validation's does.
        needed = FEWEST if attempt.is_guarded else len(last) // 2 + 1
        attempt.ended = median(settled) if len(settled) >= needed else _validation_loss(attempt.metrics)
        attempt.curve = losses[:: max(1, len(losses) // CURVE)]


def _validation_loss(metrics: dict[str, float]) -> float:
    return next(
        (value for name, value in metrics.items() if name.startswith("val") and name.endswith("loss")), math.nan
    )


def release_memory() -> None:
    """Give the device's memory back before the next training."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
