"""Hooks into an optimizer: how often its closure is called in a step, and when the step has been taken."""

from __future__ import annotations

from typing import Any

import torch

from grad_callbacks.measurement import Gauge
from grad_callbacks.treatment.step.pending_step import PendingStep


class StepHooks:
    """Follows the steps of an optimizer.

    Args:
        optimizer: Its steps are followed.
        gauge: Measures how far they move the weights.

    Attributes:
        untaken: The step that was handed over to the optimizer and has not been taken yet.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, gauge: Gauge) -> None:
        self.untaken: PendingStep | None = None
        self._gauge = gauge
        self._evaluations: int | None = None  # of the closure in the step under way; None outside of a step
        self._handles = [
            optimizer.register_step_pre_hook(self._enter),
            optimizer.register_step_post_hook(self._leave),
        ]

    def is_evaluated_again(self) -> bool:
        """Count a call from the closure; True from the second one in a step on, as LBFGS and the like make."""
        if self._evaluations is None:
            return False
        self._evaluations += 1
        return self._evaluations > 1

    def release(self) -> None:
        """Let go of the step that was handed over; a loss scaler may have skipped it."""
        if self.untaken is not None:
            self.untaken.handle.after()
            self.untaken = None

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, *_: Any) -> None:
        self._evaluations = 0

    def _leave(self, *_: Any) -> None:
        self._evaluations = None
        self._gauge.update_ratios.after_step()
        self.release()
