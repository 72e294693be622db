"""GradientMonitor: measures, logs and alerts; never changes training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from grad_callbacks.alerts import Alert, Kind, Outcome, Verdict
from grad_callbacks.callbacks.metrics import metrics
from grad_callbacks.callbacks.recording import record
from grad_callbacks.callbacks.surroundings import refuse_sharding, surroundings, warn_of_spawning
from grad_callbacks.checks import at_least
from grad_callbacks.engine import Engine, Outlook
from grad_callbacks.gradients import ForwardOrder, History
from grad_callbacks.interventions import Intervention
from grad_callbacks.loss import LossTrack
from grad_callbacks.prescription import Prescription
from grad_callbacks.report import write_report
from grad_callbacks.rules import RULES, Rule
from grad_callbacks.spec import build

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

    If an MLflow logger is among them, the run also gets tags, tables, a picture and the report when the
    training ends.

    Args:
        every_n_steps: Measure every so many optimizer steps. What happens between is not seen.
        rules: Rules, names or plain values (see :func:`grad_callbacks.spec.build`); by default all three
            built-in ones.
        on_alert: Called with each alert on rank zero.

    Raises:
        ValueError: If ``every_n_steps`` is not a whole number of at least 1, or a rule is unknown.

    Example::

        from lightning.pytorch import Trainer
        from grad_callbacks import GradientMonitor

        trainer = Trainer(callbacks=[GradientMonitor()])

    Attributes:
        alerts: All alerts so far, in order.
        interventions: All interventions so far; a monitor makes none.
    """

    def __init__(
        self,
        every_n_steps: int = 1,
        rules: Sequence[Any] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
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
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.alerts: list[Alert] = []
        self.interventions: list[Intervention] = []
        self._history = History()
        self._loss = LossTrack()
        self._engines: dict[int, Engine] = {}  # while training
        self._saved: dict[int, dict[str, Any]] = {}  # states that wait for their engine
        self._active: list[Kind] = []  # what was wrong when the engines were let go
        self._calls: dict[int, int] = {}
        self._latest: dict[int, Outlook] = {}
        self._unlogged = False
        self._logged_step = -1
        self._order: ForwardOrder | None = None
        self._batch_idx = 0
        self._warned_without_gradients = False

    @property
    def state_key(self) -> str:
        """Distinguishes the states of several monitors in a checkpoint."""
        return self._generate_state_key(
            every_n_steps=self.every_n_steps, rules=[type(rule).__name__ for rule in self.rules]
        )

    # What a user reads

    @property
    def verdict(self) -> Verdict:
        """What was wrong with the run: the kind of its first alert, or ``"healthy"``."""
        return self.alerts[0].kind if self.alerts else "healthy"

    @property
    def outcome(self) -> Outcome:
        """How the run ended.

        ``"repaired"`` if remedies were applied, no rule finds anything wrong any more, and the training loss
        does not stay above where it was before the first alert.
        """
        if not self.alerts:
            return "healthy"
        calm = not self.still_wrong and self._loss.has_returned
        return "repaired" if self.interventions and calm else "unrepaired"

    @property
    def still_wrong(self) -> list[Kind]:
        """The kinds of trouble that were there at the last reading."""
        if not self._engines:
            return list(self._active)
        return list(dict.fromkeys(kind for engine in self._engines.values() for kind in engine.active))

    def history(self) -> pd.DataFrame:
        """Return one row per step and layer.

        Returns:
            Columns ``step`` (``trainer.global_step`` at ``on_before_optimizer_step``), ``layer``, ``depth``
            (place in the forward pass, from 0), ``norm`` and ``rms`` (of the gradient before any remedy; the root
            of a step's summed squared norms is its global norm), ``weight_norm`` (as last measured) and
            ``update_ratio`` (norm of the layer's change in this step over its weight norm; NaN where it was not
            measured). In long runs every second step is dropped, again and again, except those of alerts.
        """
        return self._history.to_frame()

    def report(self) -> str:
        """Return verdict, alerts, interventions and the layers' profile as markdown."""
        return write_report(
            self.verdict, self.outcome, self.alerts, self.interventions, self.history(), self.still_wrong, self._loss
        )

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be measured, before anything is spent on it."""
        if stage == "fit":
            refuse_sharding(trainer, type(self).__name__)
            warn_of_spawning(trainer, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare to learn the order of the layers from the first forward pass."""
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            rank_zero_warn(f"{type(self).__name__}: the model has no trainable parameters, there is nothing to watch.")
        if trainer.global_step == 0 and self._calls:
            self._start_afresh()  # another run with the same callback
        # Engines are made before the first step: a learning rate that was lowered before a checkpoint or in an
        # earlier fit must be low in that step too, whose hooks run before its gradients are there.
        self._engines = {i: self._engine(pl_module, o, i) for i, o in enumerate(trainer.optimizers)}
        if not all(engine.order for engine in self._engines.values()):
            self._order = ForwardOrder(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the place in the epoch, which tells a short accumulation window."""
        self._batch_idx = batch_idx

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure, judge and, in a guard, treat."""
        engine = next(engine for engine in self._engines.values() if engine.optimizer is optimizer)
        latest = self._latest.get(engine.index)
        if latest is not None and latest.reading.step == trainer.global_step:
            return  # the line search of LBFGS comes here several times in a step: the first is the step's reading
        if self._order is not None and not engine.order:
            engine.learn_order(self._order.names)
        calls = self._calls[engine.index] = self._calls.get(engine.index, -1) + 1
        if calls % self.every_n_steps and not self._must_act(engine):
            return
        outlook = engine.before_step(trainer.global_step, surroundings(trainer, pl_module, optimizer, self._batch_idx))
        if outlook is None:
            self._warn_without_gradients(trainer, engine)
            return
        self._latest[engine.index] = outlook
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        is_due = calls == 0 or (every and calls % every == every - 1)
        self._unlogged = bool(self._unlogged or is_due or outlook.alerts or outlook.interventions)
        self.interventions.extend(outlook.interventions)
        for alert in outlook.alerts:
            self._raise(trainer, alert)
        for intervention in outlook.interventions:
            self._tell(trainer, f"step {intervention.step}: {intervention.remedy} switched on, {intervention.detail}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, and send the metrics to the Trainer's loggers when it is time."""
        self._loss.feed(outputs)
        if self._order is not None and all(engine.order for engine in self._engines.values()):
            self._order.remove()
            self._order = None
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
        """Return alerts, interventions, history and each engine's state as plain data and tensors."""
        engines = self._saved | {index: engine.state_dict() for index, engine in self._engines.items()}
        return {
            "alerts": [alert.to_dict() for alert in self.alerts],
            "interventions": [intervention.to_dict() for intervention in self.interventions],
            "history": self._history.state_dict(),
            "loss": self._loss.state_dict(),
            "engines": engines,
            "active": self.still_wrong,
            "calls": dict(self._calls),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; engines take their part when the training starts."""
        self.alerts = [Alert.from_dict(alert) for alert in state_dict["alerts"]]
        self.interventions = [Intervention.from_dict(i) for i in state_dict["interventions"]]
        self._history.load_state_dict(state_dict["history"])
        self._loss.load_state_dict(state_dict["loss"])
        self._saved = dict(state_dict["engines"])
        self._active = list(state_dict["active"])
        self._calls = dict(state_dict["calls"])

    # The guard's part

    def _prescription(self) -> Prescription | None:
        """What answers the alerts: nothing, in a monitor."""
        return None

    def _must_act(self, engine: Engine) -> bool:
        """True if a remedy needs every step, also those that are not to be measured."""
        return False

    # Named calls

    def _engine(self, pl_module: LightningModule, optimizer: torch.optim.Optimizer, index: int) -> Engine:
        engine = Engine(pl_module, optimizer, index, copy.deepcopy(self.rules), self._prescription(), self._history)
        if index in self._saved:
            mine = [intervention for intervention in self.interventions if intervention.optimizer == index]
            engine.load_state_dict(self._saved.pop(index), mine)
        return engine

    def _raise(self, trainer: Trainer, alert: Alert) -> None:
        if not self.alerts:
            self._loss.mark()
        self.alerts.append(alert)
        layers = f" Layers: {', '.join(alert.layers)}." if alert.layers else ""
        self._tell(
            trainer,
            f"step {alert.step}: {alert.kind} gradients ({alert.severity}): {alert.message}.{layers} "
            f"Likely cause: {alert.cause}. Advice: {alert.advice}.",
        )
        if self.on_alert is not None and trainer.is_global_zero:
            self.on_alert(alert)

    def _tell(self, trainer: Trainer, message: str) -> None:
        if trainer.is_global_zero:
            log.warning(message)

    def _warn_without_gradients(self, trainer: Trainer, engine: Engine) -> None:
        # A training_step that returns None now and then is the user's way to skip a batch.
        if engine.index not in self._latest and not self._warned_without_gradients:
            self._warned_without_gradients = True
            rank_zero_warn(
                f"{type(self).__name__}: no parameter of optimizer {engine.index} had a gradient at step "
                f"{trainer.global_step}, so nothing was measured. Does the loss depend on its parameters?"
            )

    @property
    def _latest_step(self) -> int:
        return max((outlook.reading.step for outlook in self._latest.values()), default=-1)

    def _log_metrics(self, trainer: Trainer) -> None:
        self._unlogged = False
        self._logged_step = self._latest_step
        several = len(trainer.optimizers) > 1
        for index, outlook in self._latest.items():
            engine = self._engines[index]
            alerts = sum(alert.optimizer == index for alert in self.alerts)
            values = metrics(outlook, engine, alerts, suffix=f"_{index}" if several else "")
            for logger in trainer.loggers:
                logger.log_metrics(values, step=outlook.reading.step)

    def _finish(self, trainer: Trainer) -> None:
        if self._order is not None:
            self._order.remove()
            self._order = None
        if self._logged_step != self._latest_step:
            self._log_metrics(trainer)
        self._active = self.still_wrong
        for index, engine in self._engines.items():
            self._saved[index] = engine.state_dict()
            engine.detach()
        self._engines, self._latest = {}, {}  # they hold model and optimizer
        record(trainer, self)
