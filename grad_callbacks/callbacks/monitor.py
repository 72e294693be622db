"""GradientMonitor: measures, logs and alerts; never changes training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.lightning import LightningModule, Trainer
from grad_callbacks._utils.validation import at_least, flag
from grad_callbacks.callbacks._announce import Announcer
from grad_callbacks.callbacks._arguments import callable_or_none, rules_of
from grad_callbacks.callbacks._base import Callback
from grad_callbacks.callbacks._checkpoint import adopt_state, check_readable, explained, stamp
from grad_callbacks.callbacks._console import Console
from grad_callbacks.callbacks._engines import Engines
from grad_callbacks.callbacks._findings import Findings
from grad_callbacks.callbacks._metrics import MetricsLog
from grad_callbacks.callbacks._mlflow import MLflowRuns
from grad_callbacks.callbacks._replay import StepReplay
from grad_callbacks.callbacks._step_context import StepInputs, watched_module
from grad_callbacks.callbacks._unsupported import (
    UnseenSteps,
    refuse_unsupported,
    warn_of_spawning,
    warn_without_gradients,
    warn_without_parameters,
)
from grad_callbacks.engine.engine import Engine
from grad_callbacks.events import Alert
from grad_callbacks.measurement.histograms import Histograms
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.reporting.step_series import StepSeries


class GradientMonitor(Findings, Callback):
    """Watches the gradient norms of every layer and raises alerts; never changes training.

    Measures at ``on_before_optimizer_step``: gradients are accumulated, synchronised over processes and
    unscaled there. Alerts go to Python's logging (logger ``grad_callbacks``, on rank zero), to ``on_alert``,
    to the Trainer's loggers and to :attr:`alerts`.

    Metrics, every ``log_every_n_steps`` of the Trainer and at every alert; with several optimizers each key
    ends in ``_0``, ``_1`` and so on:

    * ``grad/norm``: global norm before clipping
    * ``grad/norm_clipped``: global norm of the step that is taken
    * ``grad/clip_coef``: the latter over the former
    * ``grad/decay_per_layer``: factor by which the gradient changes per layer, going back
    * ``grad/update_ratio_min``, ``grad/update_ratio_max``: smallest and largest update ratio of a layer
    * ``grad/nonfinite_steps``, ``grad/alerts``: steps with a non-finite gradient, and alerts, so far
    * ``grad/lr_scale``: factor on the learning rate
    * ``grad/lr_effective``: learning rate of the first parameter group, with that factor

    If an MLflow logger is among them, the run also gets the config and the environment when the training starts, and
    tags, tables, pictures, a page and the report when it ends; a W&B logger gets each alert as one of its own.

    Args:
        every_n_steps: Measure every so many optimizer steps. What happens between is not seen.
        rules: Rules, names or plain values (see :func:`grad_callbacks._utils.build.build`); by default all
            built-in ones.
        on_alert: Called with each alert on rank zero, such as a :class:`~grad_callbacks.notify.Notify`. If it raises,
            the error is logged with its traceback, it is not called again in this run, and the training goes on.
        diagnose: Look for the cause of an alert in model and batch: at most 20 times in a run, each time at the cost
            of some steps. ``training_step`` is run again then; everything that it does to module and random numbers is
            undone, and nothing is logged. Set it to False if ``training_step`` does more, such as writing files.
        progress_bar: Show the norm, and the kind of the first alert, in the Trainer's progress bar.
        summary: Say on the console, at the end of ``fit``, how it went: in one line, in four if something was wrong.

    Raises:
        ValueError: If an argument is wrong; the message names it.

    Example::

        from lightning.pytorch import Trainer
        from grad_callbacks import GradientMonitor

        trainer = Trainer(callbacks=[GradientMonitor()])

    Attributes:
        record: Alerts, interventions, history and loss, which the properties below read.
        step_series: The few numbers of each step that the pictures show.
        histograms: The gradients' entries at a few steps; only where an MLflow logger shows them.
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        rules: Sequence[Any] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        diagnose: bool = True,
        progress_bar: bool = True,
        summary: bool = True,
    ) -> None:
        super().__init__()
        self.every_n_steps = at_least("every_n_steps", every_n_steps, 1)
        self.rules = rules_of(rules)
        self.on_alert = callable_or_none(on_alert)
        self.diagnose = flag("diagnose", diagnose)
        self.progress_bar = flag("progress_bar", progress_bar)
        self.summary = flag("summary", summary)
        self._state_key: tuple[object, str] | None = None  # and for which settings
        self._start_new_record()

    def _start_new_record(self) -> None:
        self.record = Record()
        self.step_series = StepSeries()
        self.histograms = Histograms()
        self._mlflow = MLflowRuns()
        self._announcer = Announcer()
        self._metrics = MetricsLog()
        self._console = Console(type(self).__name__, self.progress_bar, self.summary)
        self._engines = Engines(type(self).__name__)
        self._inputs = StepInputs()
        self._warned_without_gradients = False
        self._unseen = UnseenSteps(type(self).__name__)

    @property
    def state_key(self) -> str:
        """Distinguishes the states of several monitors in a checkpoint."""
        settings = self.every_n_steps, tuple(map(type, self.rules))
        if self._state_key is None or self._state_key[0] != settings:  # Lightning asks for it at every hook
            names = [type(rule).__name__ for rule in self.rules]
            self._state_key = settings, self._generate_state_key(every_n_steps=self.every_n_steps, rules=names)
        return self._state_key[1]

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be measured, before anything is spent on it."""
        if stage == "fit":
            refuse_unsupported(trainer, type(self).__name__)
            warn_of_spawning(trainer, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the engines: before the first step, where a learning rate that was lowered earlier must be low."""
        warn_without_parameters(pl_module, type(self).__name__)
        if trainer.global_step == 0 and not self.record.is_empty:
            self._start_new_record()  # another run with the same callback
        replays = self.diagnose or self._treatment(trainer).get("trial") is not None
        self._inputs = StepInputs(StepReplay(trainer, pl_module) if replays else None)
        for index, optimizer in enumerate(trainer.optimizers):
            self._engines.add(index, self._engine(trainer, pl_module, optimizer, index))
        self._mlflow.begin(trainer)
        self._console.begin(trainer, self._engines, self._settings(), self._found)

    def _found(self) -> str:
        """The kind of the first alert so far; the verdict would read losses, and wait for the device."""
        return self.alerts[0].kind if self.alerts else "no alert"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch."""
        self._inputs.note_batch(batch, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss, learn the order of the layers from the first ones, and prepare the backward pass."""
        self._inputs.note_loss(loss)
        for engine in self._engines:
            engine.before_backward(loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure, judge and, in a guard, treat."""
        engine = self._engine_of(trainer, pl_module, optimizer)
        seen, measured = engine.seen, engine.measured
        context = self._inputs.context(trainer, pl_module, optimizer)
        if self._mlflow.shows_pictures and engine.index == 0:
            self.histograms.offer(engine.gauge.layers, trainer.global_step, context.loss_scale)
        engine.before_step(trainer.global_step, context=context)
        if engine.measured == 0 and engine.seen > seen and not self._warned_without_gradients:
            self._warned_without_gradients = True  # once: a training_step may return None to skip a batch
            warn_without_gradients(type(self).__name__, engine.index, trainer.global_step)
        self._metrics.note_step(trainer, engine, seen, measured)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss, and send the metrics to the Trainer's loggers when they are due."""
        self.record.feed(outputs)
        self._unseen.note_batch(trainer, sum(engine.seen for engine in self._engines))
        if self._metrics.is_due:
            self._metrics.send(trainer, self._engines.by_index, self.alerts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the record of the run."""
        self._finish(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how it went, below the progress bar."""
        self._console.end(self.record, self._mlflow.reported)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the record of a run that failed or was interrupted."""
        if self._engines.by_index:
            self._finish(trainer)
        self._console.end(self.record, self._mlflow.reported)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint of a run with other rules or another ``every_n_steps`` too."""
        known = [callback.state_key for callback in trainer.callbacks]  # type: ignore[attr-defined]  # of the Trainer
        adopt_state(self.state_key, known, checkpoint["callbacks"])

    def state_dict(self) -> dict[str, Any]:
        """Return version, record and each engine's state as plain data and tensors."""
        engines = self._engines.state_dict()  # first: they may still have a step to judge
        pictures = {"course": self.step_series.state_dict(), "histograms": self.histograms.state_dict()}
        return {**stamp(), "record": self.record.state_dict(), "engines": engines, "pictures": pictures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; engines take their part when the training starts.

        Raises:
            ValueError: If this version cannot read the state; the message says which version wrote it.
        """
        check_readable(state_dict, type(self).__name__)
        with explained(state_dict, type(self).__name__):
            self.record.load_state_dict(state_dict["record"])
            if pictures := state_dict.get("pictures"):
                self.step_series.load_state_dict(pictures["course"])
                self.histograms.load_state_dict(pictures["histograms"])
            engines = dict(state_dict["engines"])
        self._engines.load_state_dict(engines, {name: state_dict[name] for name in stamp() if name in state_dict})

    def _treatment(self, trainer: Trainer) -> dict[str, Any]:
        """The engines' arguments for the treatment: none, in a monitor."""
        return {}

    def _settings(self) -> str:
        """The rules, in words."""
        often = f"every {self.every_n_steps} steps, " if self.every_n_steps > 1 else ""
        return f"{often}rules {', '.join(type(rule).__name__ for rule in self.rules)}"

    def _engine(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer, index: int
    ) -> Engine:
        return Engine(
            watched_module(trainer, pl_module),
            optimizer,
            rules=self.rules,
            every_n_steps=self.every_n_steps,
            record=self.record,
            index=index,
            on_step_result=partial(self._on_step_result, trainer, index),
            agree_on=trainer.strategy.broadcast,
            diagnose=self.diagnose,
            **self._treatment(trainer),
        )

    def _engine_of(self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer) -> Engine:
        known = self._engines.of(optimizer)
        if known is not None:
            return known
        # Another callback has replaced the Trainer's optimizers in mid-run, as fine-tuning callbacks do.
        places = {id(entry): place for place, entry in enumerate(trainer.optimizers)}
        index = places.get(id(optimizer), len(self._engines.by_index))
        self._engines.retire(index)
        return self._engines.add(index, self._engine(trainer, pl_module, optimizer, index))

    def _on_step_result(self, trainer: Trainer, index: int, result: StepResult) -> None:
        self._metrics.note_result(index, result)
        self.step_series.note(result)
        self._console.note(index, result)
        self._announcer.announce(trainer, result, self.on_alert)
        for trial in result.trials:
            self._mlflow.record_trial(trainer, trial)

    def _finish(self, trainer: Trainer) -> None:
        self._engines.close()
        self._console.close_bar()
        self._metrics.finish(trainer, self._engines.by_index, self.alerts)
        self._engines.clear()
        self._inputs = StepInputs()  # it holds batch and model
        self.step_series.settle()
        self._mlflow.end(trainer, self.record, self.step_series, self.histograms)
