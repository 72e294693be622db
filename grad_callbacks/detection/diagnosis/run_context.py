"""Keeps what a diagnosis needs of a run, and starts the diagnosis of its alerts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from grad_callbacks._utils.compiled import can_run_eagerly, has_compiled_part
from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.detection.diagnosis.activations import ActivationProbe
from grad_callbacks.detection.diagnosis.case import Case
from grad_callbacks.detection.diagnosis.diagnose import diagnose
from grad_callbacks.detection.diagnosis.finding import CAUSES
from grad_callbacks.detection.diagnosis.weight_gains import weight_gains
from grad_callbacks.events import Alert
from grad_callbacks.measurement import QuietBlock, Reading, is_alone
from grad_callbacks.measurement.batch import Batch


@dataclass(frozen=True)
class RunContextThresholds(Thresholds):
    """Thresholds of what is kept of a run for its diagnosis."""

    losses: int = threshold(100, "latest losses that are kept", unit="steps", source="not measured")
    most_alerts: int = threshold(
        20,
        "alerts of a run that are diagnosed: each takes several passes over the batch",
        unit="alerts",
        source="not measured",
    )


LIMITS = RunContextThresholds()


class RunContext:
    """Keeps what a diagnosis needs: the gains of the first weights, the latest losses, the last batch.

    Where several processes train together, the batch of one says nothing about those of the others, and a pass over it
    would wait for them: only weights and losses are used there. With sharded weights nothing is diagnosed, and alerts
    keep the cause that their rule has guessed.

    Args:
        model: Is trained.
        is_sharded: This process holds only a part of the weights.
    """

    def __init__(self, model: nn.Module, is_sharded: bool = False) -> None:
        self._model = model
        self._is_sharded = is_sharded
        self._may_replay = is_alone() and can_run_eagerly(model)
        self._may_hook = is_alone() and not has_compiled_part(model, in_place=True)  # or it would be compiled again
        self._first_gains = {} if is_sharded else weight_gains(model)
        self._first_rates: tuple[float, ...] | None = None
        self._highest_rates: tuple[float, ...] | None = None
        self._last_rates: tuple[float, ...] = ()
        self._losses: deque[float] = deque(maxlen=LIMITS.losses)
        self._previous = Batch()
        self._probe: ActivationProbe | None = None
        self._alerts: list[Alert] = []

    def look_out(self, is_near: bool) -> None:
        """Watch the activations of the next forward pass if an alert is near, else do not."""
        if is_near and self._probe is None and self._may_hook:
            self._probe = ActivationProbe(self._model)
            self._probe.attach()
        elif not is_near and self._probe is not None:
            self.close()

    def close(self) -> None:
        """Let go of the model."""
        if self._probe is not None:
            self._probe.detach()
            self._probe = None

    def begin_anew(self) -> None:
        """Take the present weights for the first ones, after a re-initialisation."""
        self._first_gains = {} if self._is_sharded else weight_gains(self._model)
        self._losses.clear()

    def note(self, reading: Reading, batch: Batch, rates: Sequence[float]) -> None:
        """Remember a step that has been judged, and the learning rates it was taken with."""
        if rates != self._last_rates:
            self._last_rates = tuple(rates)
            self._first_rates = self._first_rates or self._last_rates
            # Of the first groups; a fine-tuning schedule may have added others.
            self._highest_rates = tuple(map(max, self._highest_rates or rates, rates))
        self._losses.append(reading.loss)
        self._previous = batch

    def take_in(self, block: QuietBlock) -> None:
        """Remember steps in a row."""
        for reading, plan in zip(block.readings, block.plans, strict=True):
            self.note(reading, block.batch, plan.rates)

    def may_try(self, is_late: bool) -> bool:
        """True if the batch before can be computed again with the weights before the step, and diagnoses are left."""
        can_replay = self._may_replay and self._previous.replay is not None and not is_late
        return can_replay and not self._is_sharded and len(self._alerts) < LIMITS.most_alerts

    def look_into(
        self,
        alert: Alert,
        reading: Reading,
        optimizer: torch.optim.Optimizer,
        rates: Sequence[float],
        batch: Batch,
        is_late: bool,
    ) -> Alert:
        """Return the alert with its likely cause.

        An alert whose cause is none of the known ones keeps it: its rule knows better.

        Args:
            alert: As its rule has raised it.
            reading: What it was raised for.
            optimizer: Takes, or has taken, the step.
            rates: The learning rate of each parameter group in it.
            batch: The step's batch.
            is_late: The step has been taken since.
        """
        if self._is_sharded or alert.cause not in CAUSES or len(self._alerts) >= LIMITS.most_alerts:
            return alert
        here = batch if self._may_replay else Batch()
        before = self._previous if self._may_replay else Batch()
        case = Case(
            self._model,
            reading=reading,
            optimizer=optimizer,
            rates=tuple(rates),
            losses=tuple(self._losses),
            batch=here.content,
            previous_batch=before.content,
            batch_index=here.index,
            replay=here.replay,
            replay_previous=before.replay,
            activations=self._probe,
            first_gains=self._first_gains,
            first_rates=self._first_rates,
            highest_rates=self._highest_rates,
            earlier=tuple(self._alerts),
            is_late=is_late,
        )
        found = diagnose(alert, case)
        self._alerts.append(found)
        return found

    def forget(self, alert: Alert) -> None:
        """Take back an alert that its own cause has refuted: later ones are no consequence of it."""
        self._alerts = [known for known in self._alerts if known is not alert]

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists; batches are not kept."""
        return {
            "first_gains": dict(self._first_gains),
            "first_rates": list(self._first_rates) if self._first_rates else None,
            "highest_rates": list(self._highest_rates) if self._highest_rates else None,
            "losses": list(self._losses),
            "alerts": [alert.to_dict() for alert in self._alerts],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._first_gains = dict(state["first_gains"])
        self._first_rates = tuple(state["first_rates"]) if state["first_rates"] else None
        self._highest_rates = tuple(state["highest_rates"]) if state["highest_rates"] else None
        self._losses = deque(state["losses"], maxlen=LIMITS.losses)
        self._last_rates = ()
        self._alerts = [Alert.from_dict(alert) for alert in state["alerts"]]
