"""Warm the learning rate up, late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grad_callbacks._utils.validation import at_least
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


class Warmup(Remedy):
    """Raises the learning rate linearly from nearly zero to the user's own, under any scheduler.

    Meant for a fresh run that needed it from the start, such as a post-norm transformer under Adam (Xiong et al. 2020,
    "On Layer Normalization in the Transformer Architecture"; Liu et al. 2020, "RAdam"). What its first steps have
    spoilt no later rate brings back, so the run begins again from the weights before its first step, if a snapshot of
    them is left.

    Args:
        steps: Length of the warm-up.

    Raises:
        ValueError: If ``steps`` is no whole number of at least 1.
    """

    changes_weights = True
    begins_anew = True

    needs_snapshots = True

    def __init__(self, steps: int = 100) -> None:
        self.steps = at_least("steps", steps, 1)
        self._cut = LRMultiplier()
        self._taken: int | None = None  # steps of the warm-up; None before it and after
        self._skip_next = False
        self._done = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Begin the warm-up. Once only."""
        if self._done:
            return None
        self._done, self._taken = True, 0
        run_state, detail = step.run_state, {"warmup_steps": self.steps}
        if run_state is not None and run_state.snapshots is not None and run_state.from_start:
            first = run_state.snapshots.first
            if first is not None:
                run_state.snapshots.restore(first)
                run_state.restarted_from = "start"
                self._skip_next = True
                detail["to_step"] = first["step"]
        self._cut.set(step.learning_rate, 1 / self.steps)
        return detail

    def act(self, step: OptimizerStep) -> bool:
        """Raise the rate by one step's share."""
        if self._taken is None:
            return False
        if self._skip_next:
            self._skip_next = False
            step.skip()
            return True
        self._taken += 1
        self._cut.set(step.learning_rate, min(1.0, self._taken / self.steps))
        if self._taken >= self.steps:
            self._taken = None
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"cut": self._cut.state_dict(), "taken": self._taken, "skip_next": self._skip_next, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._cut.load_state_dict(state["cut"])
        self._taken, self._skip_next, self._done = state["taken"], state["skip_next"], state["done"]
