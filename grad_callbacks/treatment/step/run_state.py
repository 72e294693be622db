"""The state of the run at a step, for remedies that change more than its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from grad_callbacks.events import Alert
from grad_callbacks.measurement import Batch
from grad_callbacks.measurement.loss_level import LossLevel
from grad_callbacks.treatment.step.snapshots import Snapshots


@dataclass
class RunState:
    """The state of the run at a step.

    Attributes:
        model: The model whose parameters the optimizer moves.
        batch: The batch of the step.
        snapshots: Earlier states to go back to; None where no remedy asked for them.
        alert: The alert that is being answered.
        readings: Readings so far in this run, this one included; those before a checkpoint count.
        from_start: The run was watched from its first step on, with an optimizer that had not stepped before.
        has_learned: The loss has come down since the start, so the weights are worth keeping.
        loss_level: The level of the loss; None if it is not followed.
        restarted_from: Set by a remedy if the weights are no longer those of the readings before:
            ``"start"`` if they were initialised, or the snapshot they come from.
    """

    model: nn.Module
    batch: Batch = field(default_factory=Batch)
    snapshots: Snapshots | None = None
    alert: Alert | None = None
    readings: int = 1
    from_start: bool = True
    has_learned: bool = False
    loss_level: LossLevel | None = None
    restarted_from: str | Mapping[str, Any] | None = None

    @property
    def is_at_the_start(self) -> bool:
        """True if a remedy has gone back to before the first step, in this step."""
        came_from = self.restarted_from
        return bool(came_from["first"]) if isinstance(came_from, Mapping) else came_from == "start"

    @property
    def has_much_to_lose(self) -> bool:
        """True if the weights know what the run has learned."""
        return self.has_learned and not self.is_at_the_start
