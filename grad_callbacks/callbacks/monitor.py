"""GradientMonitor: measures, logs and alerts; never changes training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from grad_callbacks._utils.build import build
from grad_callbacks._utils.validation import at_least
from grad_callbacks.callbacks._base import Callback
from grad_callbacks.callbacks._metrics import metrics
from grad_callbacks.callbacks._mlflow import Recording
from grad_callbacks.callbacks._replay import Replaying
from grad_callbacks.callbacks._step_context import refuse_unsupported, surroundings, warn_of_spawning, watched_module
from grad_callbacks.callbacks._wandb import announce
from grad_callbacks.detection.rules import RULES, Rule
from grad_callbacks.engine.engine import Engine
from grad_callbacks.events import Alert, Intervention, Outcome
from grad_callbacks.measurement import Batch
from grad_callbacks.measurement.histograms import Histograms
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.reporting.step_series import StepSeries
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.trial import Trial

log = logging.getLogger("grad_callbacks")


class GradientMonitor(Callback):
    """Watches the gradient norms of every layer and raises alerts; never changes training.

    Measures at ``on_before_optimizer_step``: gradients are accumulated, synchronised over processes and
    unscaled there. Alerts go to Python's logging (logger ``grad_callbacks``, on rank zero), to ``on_alert``,
    to the Trainer's loggers and to :attr:`alerts`.

    Metrics, every ``log_every_n_steps`` of the Trainer and at every alert; with several optimizers each key
    ends in ``_0``, ``_1`` and so on:

    =========================  ==============================================================
    ``grad/norm``              global norm before clipping
    ``grad/norm_clipped``      global norm of the step that is taken
    ``grad/clip_coef``         the latter over the former
    ``grad/decay_per_layer``   factor by which the gradient changes per layer, going back
    ``grad/update_ratio_min``  smallest update ratio of a layer, as last measured
    ``grad/update_ratio_max``  largest
    ``grad/nonfinite_steps``   steps with a non-finite gradient so far
    ``grad/alerts``            alerts so far
    ``grad/lr_scale``          factor on the learning rate
    ``grad/lr_effective``      learning rate of the first parameter group, with that factor
    =========================  ==============================================================

    If an MLflow logger is among them, the run also gets the config and the environment when the training starts, and
    tags, tables, pictures, a page and the report when it ends; a W&B logger gets each alert as one of its own.

    Args:
        every_n_steps: Measure every so many optimizer steps. What happens between is not seen.
        rules: Rules, names or plain values (see :func:`grad_callbacks._utils.build.build`); by default all three
            built-in ones.
        on_alert: Called with each alert on rank zero, such as a :class:`~grad_callbacks.notify.Notify`.
        diagnose: Look for the cause of an alert in model and batch: at most 20 times in a run, each time for the price
            of some steps. ``training_step`` is run again then, with everything that it does to module and random
            numbers undone and nothing logged. Say False if it does more than that, such as writing files.

    Raises:
        ValueError: If ``every_n_steps`` is not a whole number of at least 1, or a rule is unknown.

    Example::

        from lightning.pytorch import Trainer
        from grad_callbacks import GradientMonitor

        trainer = Trainer(callbacks=[GradientMonitor()])

    Attributes:
        record: All that the properties below read.
        course: The few numbers of each step that the pictures show.
        histograms: The gradients' entries at a few steps; only where an MLflow logger shows them.
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        rules: Sequence[Any] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        diagnose: bool = True,
    ) -> None:
        super().__init__()
        self.every_n_steps = at_least("every_n_steps", every_n_steps, 1)
        if rules is not None and (isinstance(rules, str) or not isinstance(rules, Sequence)):
            raise ValueError(f"rules must be a list of rules, got {rules!r}")
        if on_alert is not None and not callable(on_alert):
            raise ValueError(f"on_alert must be callable, got {on_alert!r}")
        self.rules: list[Rule] = [
            build(rule, RULES, "rule", Rule) for rule in (list(RULES) if rules is None else rules)
        ]
        self.on_alert = on_alert
        self.diagnose = diagnose
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.record = Record()
        self.course = StepSeries()
        self.histograms = Histograms()
        self._recording = Recording()
        self._engines: dict[int, Engine] = {}  # while training
        self._saved: dict[int, dict[str, Any]] = {}  # states that wait for their engine
        self._latest: dict[int, StepResult] = {}
        self._unlogged = False
        self._logged: dict[int, int] = {}  # for each optimizer the last step whose metrics were sent
        self._batch_idx = 0
        self._batch = Batch()
        self._replaying: Replaying | None = None  # while training
        self._losses: list[Tensor] = []  # of the backward passes since the last step
        self._has_stepped = False
        self._warned_without_gradients = False

    @property
    def state_key(self) -> str:
        """Distinguishes the states of several monitors in a checkpoint."""
        return self._generate_state_key(
            every_n_steps=self.every_n_steps, rules=[type(rule).__name__ for rule in self.rules]
        )

    # What a user reads

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, in order."""
        return self.record.alerts

    @property
    def interventions(self) -> list[Intervention]:
        """All interventions so far, in order; a monitor makes none."""
        return self.record.interventions

    @property
    def verdict(self) -> str:
        """What was wrong with the run (see :attr:`grad_callbacks.reporting.record.Record.verdict`)."""
        return self.record.verdict

    @property
    def outcome(self) -> Outcome:
        """How the run ended (see :attr:`grad_callbacks.reporting.record.Record.outcome`)."""
        return self.record.outcome

    @property
    def still_wrong(self) -> list[str]:
        """The kinds of trouble that were there at the last reading."""
        return self.record.still_wrong

    def history(self) -> pd.DataFrame:
        """Return one row per step and layer (see :meth:`grad_callbacks.reporting.record.Record.history`).

        ``step`` is ``trainer.global_step`` at ``on_before_optimizer_step``.
        """
        return self.record.history()

    def report(self) -> str:
        """Return verdict, alerts, interventions and the layers' profile as markdown."""
        return self.record.report()

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be measured, before anything is spent on it."""
        if stage == "fit":
            refuse_unsupported(trainer, type(self).__name__)
            warn_of_spawning(trainer, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the engines: before the first step, where a learning rate that was lowered earlier must be low."""
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            rank_zero_warn(f"{type(self).__name__}: the model has no trainable parameters, there is nothing to watch.")
        if trainer.global_step == 0 and not self.record.is_empty:
            self._start_afresh()  # another run with the same callback
        self._replaying = Replaying(trainer, pl_module) if self.diagnose or self._trial() is not None else None
        for index, optimizer in enumerate(trainer.optimizers):
            self._engines[index] = self._engine(trainer, pl_module, optimizer, index)
        self._recording.begin(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the batch, and its place in the epoch, which tells a short accumulation window."""
        self._batch_idx = batch_idx
        if self._replaying is not None:
            self._batch = self._replaying.batch(batch, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the loss, learn the order of the layers from the first ones, and prepare the backward pass."""
        if self._has_stepped:
            self._has_stepped = False
            self._losses.clear()
        self._losses.append(loss.detach())
        for engine in self._engines.values():
            engine.before_backward(loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure, judge and, in a guard, treat."""
        engine = self._engine_of(trainer, pl_module, optimizer)
        seen, measured = engine.seen, engine.measured
        context = surroundings(trainer, pl_module, optimizer, self._batch_idx, self._losses)
        context = replace(context, batch=self._batch)
        self._has_stepped = True
        if self._recording.shows_pictures and engine.index == 0:
            self.histograms.offer(engine.gauge.layers, trainer.global_step, context.loss_scale)
        engine.before_step(trainer.global_step, context=context)
        if engine.measured == 0 and engine.seen > seen:
            self._warn_without_gradients(trainer, engine)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        self._unlogged |= engine.measured > measured and measured == 0
        self._unlogged |= bool(engine.seen > seen and every and engine.seen % every == 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and send the metrics to the Trainer's loggers when it is time."""
        self.record.feed(outputs)
        if self._unlogged:
            self._log_metrics(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the record of the run."""
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the record of a run that failed or was interrupted."""
        if self._engines:
            self._finish(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the record and each engine's state as plain data and tensors."""
        engines = self._saved | {index: engine.state_dict() for index, engine in self._engines.items()}
        pictures = {"course": self.course.state_dict(), "histograms": self.histograms.state_dict()}
        return {"record": self.record.state_dict(), "engines": engines, "pictures": pictures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; engines take their part when the training starts."""
        self.record.load_state_dict(state_dict["record"])
        self._saved = dict(state_dict["engines"])
        if pictures := state_dict.get("pictures"):
            self.course.load_state_dict(pictures["course"])
            self.histograms.load_state_dict(pictures["histograms"])
        for index, engine in self._engines.items():  # sharded strategies load after the start
            self._load(index, engine)

    # The guard's part

    def _prescription(self) -> Prescription | None:
        """What answers the alerts: nothing, in a monitor."""
        return None

    def _trial(self) -> Trial | None:
        """How remedies are tried out: not at all, in a monitor."""
        return None

    # Named calls

    def _engine(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer, index: int
    ) -> Engine:
        engine = Engine(
            watched_module(trainer, pl_module),
            optimizer,
            rules=self.rules,
            prescription=self._prescription(),
            every_n_steps=self.every_n_steps,
            record=self.record,
            index=index,
            on_step_result=partial(self._take_in, trainer, index),
            agree_on=trainer.strategy.broadcast,
            diagnose=self.diagnose,
            trial=self._trial(),
        )
        self._load(index, engine)
        return engine

    def _load(self, index: int, engine: Engine) -> None:
        if index in self._saved:
            engine.load_state_dict(self._saved.pop(index))

    def _engine_of(self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer) -> Engine:
        for engine in self._engines.values():
            if engine.optimizer is optimizer:
                return engine
        # Somebody has replaced the Trainer's optimizers in mid-run, as fine-tuning callbacks do.
        index = next((i for i, known in enumerate(trainer.optimizers) if known is optimizer), len(self._engines))
        if index in self._engines:
            self._saved[index] = self._engines[index].state_dict()
            self._engines[index].close()
        self._engines[index] = self._engine(trainer, pl_module, optimizer, index)
        return self._engines[index]

    def _take_in(self, trainer: Trainer, index: int, result: StepResult) -> None:
        self._latest[index] = result
        self.course.note(result)
        self._unlogged |= bool(result.alerts or result.interventions)
        for alert in result.alerts:
            self._raise(trainer, alert)
        for trial in result.trials:
            self._tell(trainer, f"step {trial.step}: trial won by {trial.winner or 'nobody'}; losses: {trial.told}")
            self._recording.tell(trainer, trial)
        for made in result.interventions:
            self._tell(trainer, f"step {made.step}: {made.remedy} switched on, {made.detail}")

    def _raise(self, trainer: Trainer, alert: Alert) -> None:
        layers = f" Layers: {', '.join(alert.layers)}." if alert.layers else ""
        self._tell(
            trainer,
            f"step {alert.step}: {alert.kind} gradients ({alert.severity}): {alert.message}.{layers} "
            f"Likely cause: {alert.cause}. Advice: {alert.advice}.",
        )
        announce(trainer, alert)
        if self.on_alert is not None and trainer.is_global_zero:
            self.on_alert(alert)

    def _tell(self, trainer: Trainer, message: str) -> None:
        if trainer.is_global_zero:
            log.warning(message)

    def _warn_without_gradients(self, trainer: Trainer, engine: Engine) -> None:
        # A training_step that returns None now and then is the user's way to skip a batch.
        if not self._warned_without_gradients:
            self._warned_without_gradients = True
            rank_zero_warn(
                f"{type(self).__name__}: no parameter of optimizer {engine.index} had a gradient at step "
                f"{trainer.global_step}, so nothing was measured. Does the loss depend on its parameters?"
            )

    def _log_metrics(self, trainer: Trainer) -> None:
        several = len(trainer.optimizers) > 1
        for index, result in self._latest.items():
            if self._logged.get(index) == result.reading.step:
                continue  # nothing new: it steps seldom, or an accelerator's numbers are still to come
            self._unlogged, self._logged[index] = False, result.reading.step
            alerts = sum(alert.optimizer == index for alert in self.alerts)
            values = metrics(result, self._engines[index], alerts, suffix=f"_{index}" if several else "")
            for logger in trainer.loggers:
                logger.log_metrics(values, step=result.reading.step)

    def _finish(self, trainer: Trainer) -> None:
        for index, engine in self._engines.items():
            try:
                self._saved[index] = engine.state_dict()
            except RuntimeError as error:  # a device that has failed: the user's own error says more
                rank_zero_warn(f"{type(self).__name__}: the last step could not be judged: {error}")
            with suppress(RuntimeError):
                engine.close()
        self._log_metrics(trainer)
        self._engines, self._latest = {}, {}  # they hold model and optimizer,
        self._batch, self._replaying = Batch(), None  # and so do these
        self._recording.end(trainer, self)
