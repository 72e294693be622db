"""The engine: for one optimizer, from gradients to reading to alerts to interventions, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from grad_callbacks.alerts import Alert, Kind
from grad_callbacks.gradients import History, Layers, Motion, Reading, measure
from grad_callbacks.interventions import Intervention
from grad_callbacks.prescription import Prescription
from grad_callbacks.remedies import OptimizerStep
from grad_callbacks.remedies.learning_rate import LearningRate
from grad_callbacks.rules import Rule
from grad_callbacks.spec import load_named_states


@dataclass(frozen=True)
class Surroundings:
    """What the engine must be told about a step, because gradients alone do not show it.

    Attributes:
        loss_scale: What the gradients are still multiplied with.
        under_scaler: A loss scaler is at work and skips steps that overflow.
        scaled_in_step: The optimizer unscales by itself (fused, under a loss scaler).
        partial: The accumulation window was cut short.
        clip_at: The norm to which the user's own clipping will clip afterwards.
    """

    loss_scale: float = 1.0
    under_scaler: bool = False
    scaled_in_step: bool = False
    partial: bool = False
    clip_at: float | None = None


@dataclass(frozen=True)
class Outlook:
    """What happened at one step.

    Attributes:
        reading: The gradients before any remedy.
        alerts: What the rules said.
        interventions: What was switched on.
        norm_clipped: The global norm with which the step is taken, after remedies and the user's clipping.
        coefficient: ``norm_clipped`` over the measured norm; NaN for a non-finite gradient.
        lr_scale: The factor on the learning rate.
        lr_effective: The learning rate of the first parameter group, with the factor.
    """

    reading: Reading
    alerts: list[Alert]
    interventions: list[Intervention]
    norm_clipped: float
    coefficient: float
    lr_scale: float
    lr_effective: float


@dataclass
class Engine:
    """Watches one optimizer, and treats it if there is a prescription.

    Call :meth:`before_step` when the gradients are complete and before the optimizer uses them. The engine
    hooks into the optimizer to see the step itself; :meth:`detach` takes the hooks away.

    Attributes:
        model: Gives the layers their names.
        optimizer: Its parameters are watched.
        index: The optimizer's index among several.
        rules: Judge the readings, in this order.
        prescription: Answers the alerts; None never changes training.
        history: Receives every reading.
        order: Names of the layers in forward order; empty while unknown.
        nonfinite_steps: Readings with a non-finite gradient so far.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    index: int
    rules: Sequence[Rule]
    prescription: Prescription | None
    history: History
    order: Sequence[str] = ()
    nonfinite_steps: int = 0
    _first_cause: Kind | None = None
    _latest: dict[tuple[Kind, str], Intervention] = field(default_factory=dict)
    _last: Reading | None = None

    def __post_init__(self) -> None:
        self.learning_rate = LearningRate(self.optimizer)
        self._post_hook = self.optimizer.register_step_post_hook(self._after_step)
        self._regroup()

    @property
    def active(self) -> list[Kind]:
        """The kinds of trouble that were still there at the last reading."""
        return [rule.kind for rule in self.rules if rule.active]

    def before_step(self, step: int, around: Surroundings | None = None) -> Outlook | None:
        """Measure, judge and treat the step that the optimizer is about to take.

        Args:
            step: Its number.
            around: What is special about it.

        Returns:
            What happened; None if no parameter has a gradient.
        """
        around = around or Surroundings()
        if self._grouping != _grouping(self.optimizer):
            self._regroup()  # a fine-tuning schedule has added parameters
        reading = self._read(step, around)
        if reading is None:
            return None
        self._last = reading
        self.nonfinite_steps += not reading.is_finite
        self.history.append(reading)
        alerts = [alert for rule in self.rules if (alert := rule.judge(reading)) is not None and self._is_news(alert)]
        if alerts:
            self.history.mark(step)
        pending = OptimizerStep(reading, self.learning_rate, around.loss_scale, around.scaled_in_step)
        interventions = self._treat(alerts, pending)
        norm_clipped = min(pending.norm, around.clip_at) if around.clip_at else pending.norm
        return Outlook(
            reading=reading,
            alerts=alerts,
            interventions=interventions,
            norm_clipped=norm_clipped,
            coefficient=norm_clipped / reading.norm if reading.norm > 0 else 1.0,
            lr_scale=self.learning_rate.scale,
            lr_effective=self.learning_rate.effective()[0],
        )

    def learn_order(self, order: Sequence[str]) -> None:
        """Put the layers in the order of the forward pass."""
        self.order = list(order)
        self._regroup()

    def detach(self) -> None:
        """Let go of the optimizer: hooks removed, the user's learning rates in place."""
        self.learning_rate.remove()
        self._post_hook.remove()

    def _read(self, step: int, around: Surroundings) -> Reading | None:
        reading = measure(self.layers, step, self.index, around.loss_scale, around.under_scaler, around.partial)
        if reading is None:
            return None
        self.motion.before_step()
        reading = replace(reading, weight_norms=self.motion.weight_norms, clip_at=around.clip_at)
        if not reading.is_finite:
            return reading
        rates = self.learning_rate.effective()
        motion, displacement = self.motion.of(reading, self.optimizer, rates)
        return replace(reading, motion=motion, displacement=displacement)

    def _is_news(self, alert: Alert) -> bool:
        """False for a vanishing gradient that an explosion has left behind: the first cause is the one to report."""
        if alert.kind == "vanishing":
            return self._first_cause is None
        self._first_cause = self._first_cause or alert.kind
        return True

    def _treat(self, alerts: list[Alert], pending: OptimizerStep) -> list[Intervention]:
        if self.prescription is None:
            return []
        interventions = [i for alert in alerts if (i := self.prescription.answer(alert, pending)) is not None]
        self._latest |= {(i.alert_kind, i.remedy): i for i in interventions}
        for key in self.prescription.act(pending):
            if key in self._latest:
                self._latest[key].detail["steps"] += 1
        return interventions

    def _after_step(self, *_: Any) -> None:
        ratios = self.motion.after_step()
        if ratios is not None and self._last is not None:
            self.history.set_update_ratios(self._last, ratios)

    def _regroup(self) -> None:
        self._grouping = _grouping(self.optimizer)
        self.layers = Layers.of(self.optimizer, self.model, self.order)
        self.motion = Motion(self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as plain numbers, strings and lists."""
        return {
            "order": list(self.order),
            "layers": list(self.layers.names),
            "rules": [[type(rule).__name__, rule.state_dict()] for rule in self.rules],
            "prescription": self.prescription.state_dict() if self.prescription else None,
            "lr_scale": self.learning_rate.scale,
            "motion": self.motion.state_dict(),
            "nonfinite_steps": self.nonfinite_steps,
            "first_cause": self._first_cause,
        }

    def load_state_dict(self, state: Mapping[str, Any], interventions: Sequence[Intervention] = ()) -> None:
        """Continue from :meth:`state_dict`.

        Args:
            state: The saved state.
            interventions: Those of this optimizer so far, whose step counts go on.

        Raises:
            ValueError: If rules or prescription are not those it was saved with.
        """
        load_named_states(self.rules, state["rules"], "rules")
        if self.prescription and state["prescription"]:
            self.prescription.load_state_dict(state["prescription"])
            self.learning_rate.scale = state["lr_scale"]
        self.learn_order(state["order"])
        if state["layers"] == list(self.layers.names):  # a finetuning may have added layers since
            self.motion.load_state_dict(state["motion"])
        self.nonfinite_steps, self._first_cause = state["nonfinite_steps"], state["first_cause"]
        self._latest = {(i.alert_kind, i.remedy): i for i in interventions}


def _grouping(optimizer: torch.optim.Optimizer) -> tuple[int, ...]:
    return tuple(len(group["params"]) for group in optimizer.param_groups)
