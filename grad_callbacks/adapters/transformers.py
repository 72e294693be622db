"""Callbacks for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from grad_callbacks._utils.extras import needs
from grad_callbacks._utils.optimizers import unwrapped
from grad_callbacks._utils.validation import flag
from grad_callbacks.callbacks._announce import Announcer
from grad_callbacks.callbacks._arguments import callable_or_none, rules_of
from grad_callbacks.callbacks._console import Console
from grad_callbacks.callbacks._findings import Findings
from grad_callbacks.callbacks._metrics import metrics
from grad_callbacks.engine import Engine, StepContext
from grad_callbacks.events import Alert
from grad_callbacks.measurement import Batch
from grad_callbacks.reporting.record import Record
from grad_callbacks.reporting.step_result import StepResult
from grad_callbacks.reporting.step_series import StepSeries
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import DEFAULT_PLAN

with needs("transformers", "grad_callbacks.adapters.transformers"):
    from transformers import TrainerCallback


@dataclass(frozen=True)
class _Place:
    """Stands for a Lightning Trainer where only these are asked for."""

    is_global_zero: bool
    loggers: tuple[Any, ...] = ()


class MonitorCallback(Findings, TrainerCallback):  # type: ignore[misc, unused-ignore]  # untyped where not installed
    """Watches the gradients in a ``transformers.Trainer`` and raises alerts; never changes training.

    Gradients are read before they are clipped: the callback takes over the Trainer's ``max_grad_norm`` and clips to it
    itself, after it has looked, with the same numbers. The ten scalars of :class:`~grad_callbacks.GradientMonitor` go
    to ``trainer.state.log_history`` with the Trainer's own. A run that is resumed begins a new record.

    Args:
        rules: Rules, names or plain values; by default all built-in ones.
        on_alert: Called with each alert on the first process.
        diagnose: Look for the cause of an alert; the batch is run again then, up to 20 times in a run.
        summary: Say on the console, when the training ends, how it went.

    Raises:
        ValueError: If an argument is wrong, or, when the training starts, under DeepSpeed, which keeps its gradients.

    Example::

        from grad_callbacks.adapters.transformers import MonitorCallback

        trainer = transformers.Trainer(model=model, train_dataset=data, callbacks=[MonitorCallback()])
    """

    def __init__(
        self,
        rules: Sequence[Any] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        diagnose: bool = True,
        summary: bool = True,
    ) -> None:
        self.rules = rules_of(rules)
        self.on_alert = callable_or_none(on_alert)
        self.diagnose = flag("diagnose", diagnose)
        self.summary = flag("summary", summary)
        self.record, self.step_series = Record(), StepSeries()
        self._engine: Engine | None = None
        self._hook: Any = None
        self._latest: StepResult | None = None
        self._clip_at = 0.0  # the Trainer's max_grad_norm while a step is under way, or 0
        self._losses: list[Tensor] = []  # of the step under way
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})  # of its last batch
        self._is_replaying = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Make the engine."""
        if getattr(args, "deepspeed", None):
            raise ValueError("DeepSpeed does not expose the gradients: train with FSDP, or remove the callback")
        self._close()
        self.record, self.step_series, self._latest = Record(), StepSeries(), None
        model, optimizer = known["model"], known["optimizer"]
        self._place = _Place(state.is_world_process_zero)
        self._announcer, self._scaler = Announcer(), getattr(optimizer, "scaler", None)
        self._console = Console(type(self).__name__, progress_bar=False, summary=self.summary)
        self._engine = Engine(
            model,
            unwrapped(optimizer),
            rules=self.rules,
            record=self.record,
            on_step_result=self._note_result,
            diagnose=self.diagnose,
            **self._treatment(args.max_grad_norm),
        )
        self._model, self._hook = model, model.register_forward_hook(self._note_loss, with_kwargs=True)
        self._console.begin(self._place, [self._engine], self._settings(), lambda: "")  # type: ignore[arg-type]

    def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Keep the Trainer from clipping before the gradients were read."""
        self._losses = []
        if self._engine is not None:
            self._clip_at, args.max_grad_norm = float(args.max_grad_norm or 0), 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Measure, judge and, in a guard, treat; then clip as the Trainer would have."""
        if self._engine is None:
            return
        args.max_grad_norm = self._clip_at
        loss = self._loss()
        batch = Batch(self._inputs, None, self._replayed if self._losses else None)
        context = StepContext.of_call(self._engine.optimizer, loss, self._scaler, batch)
        self._engine.before_step(state.global_step, context=replace(context, clip_at=self._clip_at or None))
        if loss is not None:
            self.record.feed(loss)
        if self._clip_at > 0:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_at)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **known: Any) -> None:
        """Add the scalars to what the Trainer logs."""
        if self._latest is None or self._engine is None or logs is None:
            return
        values = metrics(self._latest, self._engine, len(self.alerts))
        logs.update(values)
        if state.log_history:
            state.log_history[-1].update(values)

    def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Say how it went."""
        self._close()
        self._console.end(self.record, [])

    def _treatment(self, max_grad_norm: float) -> dict[str, Any]:
        """The engine's arguments for the treatment: none, in a monitor."""
        return {}

    def _settings(self) -> str:
        return f"rules {', '.join(type(rule).__name__ for rule in self.rules)}"

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._hook.remove()
        self._engine = self._hook = self._model = None
        self._inputs = ((), {})

    def _note_result(self, result: StepResult) -> None:
        self._latest = result
        self.step_series.note(result)
        self._announcer.announce(self._place, result, self.on_alert)  # type: ignore[arg-type]

    def _note_loss(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Keep inputs and loss of a batch of the step under way."""
        loss = _loss_in(output)
        if self._is_replaying or self._engine is None or loss is None or not loss.requires_grad:
            return
        self._losses.append(loss.detach())
        self._inputs = args, kwargs
        self._engine.before_backward(loss)

    def _loss(self) -> Tensor | None:
        """The loss of the step: a sum where the model has divided by the whole step's tokens, else a mean."""
        if not self._losses:
            return None
        losses = torch.stack(self._losses)
        return losses.sum() if "num_items_in_batch" in self._inputs[1] else losses.mean()

    def _replayed(self) -> Tensor:
        """Compute the loss of the last batch again."""
        (args, kwargs), self._is_replaying = self._inputs, True
        try:
            loss = _loss_in(self._model(*args, **kwargs))
        finally:
            self._is_replaying = False
        if loss is None:
            raise ValueError("the model gave no loss")
        return loss


class GuardCallback(MonitorCallback):
    """Watches like :class:`MonitorCallback`, and applies remedies when an alert comes.

    Where the Trainer clips (``max_grad_norm``, 1.0 by default) clipping remedies are left out.

    Args:
        prescription: As for :class:`~grad_callbacks.GradientGuard`: a plan, or a preset's name.
        memory: As for :class:`~grad_callbacks.GradientGuard`.
        options: Those of :class:`MonitorCallback`.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        prescription: Mapping[str, Sequence[Any]] | str | None = None,
        memory: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.prescription = Prescription(DEFAULT_PLAN if prescription is None else prescription)
        self.prescription.prepare_for({rule.kind for rule in self.rules})
        self.memory = memory

    def _treatment(self, max_grad_norm: float) -> dict[str, Any]:
        self.prescription.left_out = ()
        if max_grad_norm:
            why = f"the Trainer clips already, max_grad_norm={max_grad_norm}"
            self.prescription.leave_out("clips", why=why)
        return {"prescription": self.prescription, "memory": self.memory}


def _loss_in(output: Any) -> Tensor | None:
    """The loss in a model's output, as the Trainer finds it."""
    loss = output.get("loss") if isinstance(output, Mapping) else output[0] if isinstance(output, tuple) else None
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None
