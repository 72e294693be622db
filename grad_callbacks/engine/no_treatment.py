"""What stands in for a :class:`RemedyRunner` where nothing is treated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.engine.step_context import StepContext
from grad_callbacks.events import Alert, Intervention
from grad_callbacks.measurement import QuietBlock
from grad_callbacks.treatment.step.pending_step import PendingStep


class NoTreatment:
    """Does nothing; has the methods of :class:`~grad_callbacks.engine.remedy_runner.RemedyRunner`."""

    latest: Mapping[tuple[str, str], Intervention] = {}
    nbytes: int = 0
    looks_at_the_start: bool = False

    def before_backward(self, loss: Tensor) -> None:
        """Do nothing."""

    def must_wait(self, context: StepContext) -> bool:
        """Return False: nothing is to be done before the step is taken."""
        return False

    def read_context(self, context: StepContext) -> None:
        """Do nothing."""

    def open(self, number: int) -> None:
        """Do nothing."""

    def begin(self, alert: Alert, step: PendingStep) -> Intervention | None:
        """Return None: nothing is done before the first step."""
        return None

    def answer(self, alerts: Iterable[Alert], step: PendingStep, loss: float) -> list[Intervention]:
        """Return nothing."""
        return []

    def support(self, interventions: Sequence[Intervention], step: PendingStep) -> list[Intervention]:
        """Return nothing."""
        return []

    def enter(self, interventions: Sequence[Intervention], step: PendingStep) -> None:
        """Do nothing."""

    def keep_a_snapshot(self, step: PendingStep, is_well: bool, is_near: bool) -> None:
        """Do nothing."""

    def act(self, step: PendingStep) -> None:
        """Do nothing."""

    def idle_for(self, readings: int) -> int:
        """Return any number."""
        return LEEWAY.any

    def let_pass(self) -> None:
        """Do nothing."""

    def take_in(self, block: QuietBlock) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def state_dict(self, made: Sequence[Intervention]) -> dict[str, Any]:
        """Return the entries of a remedy runner's state, empty."""
        return {"prescription": None, "snapshots": None, "skips_next": False}

    def load_state_dict(self, state: Mapping[str, Any], made: Sequence[Intervention]) -> None:
        """Take nothing over: what a treated run has lowered is left behind."""
