"""Warm the learning rate up, late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.treatment.remedies._support.lr_multiplier import LRMultiplier
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class WarmupThresholds(Thresholds):
    """The numbers of :class:`Warmup`."""

    steps: int = threshold(100, "length of the warm-up", unit="steps", source="not measured")


LIMITS = WarmupThresholds()


class Warmup(SkipNext, Remedy):
    """Raises the learning rate linearly from nearly zero to the user's own, under any scheduler.

    Meant for a fresh run that needed it from the start, such as a post-norm transformer under Adam (Xiong et al. 2020,
    "On Layer Normalization in the Transformer Architecture"; Liu et al. 2020, "RAdam"). No later rate repairs the
    damage of its first steps, so the run begins again from the weights before its first step, if a snapshot of them is
    left.

    Args:
        steps: Length of the warm-up.

    Raises:
        ValueError: If ``steps`` is no whole number of at least 1.
    """

    changes_weights = True
    begins_anew = True
    needs_snapshots = True

    def __init__(self, steps: int = LIMITS.steps) -> None:
        self.steps = at_least("steps", steps, 1)
        self._multiplier = LRMultiplier()
        self._taken: int | None = None  # steps of the warm-up; None before it and after
        self._done = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Begin the warm-up. Once only."""
        if self._done:
            return None
        self._done, self._taken = True, 0
        run_state, snapshots, detail = step.run_state, step.snapshots, {"warmup_steps": self.steps}
        first = snapshots.first if snapshots is not None else None
        if run_state is not None and snapshots is not None and first is not None and run_state.from_start:
            snapshots.restore(first)
            run_state.restarted_from = "start"
            self.skip_next_step()
            detail["to_step"] = first["step"]
        self._multiplier.set(step.learning_rate, 1 / self.steps)
        return detail

    def act(self, step: OptimizerStep) -> bool:
        """Raise the rate by one step's share."""
        if self._taken is None:
            return False
        if self._skips(step):
            return True
        self._taken += 1
        self._multiplier.set(step.learning_rate, min(1.0, self._taken / self.steps))
        if self._taken >= self.steps:
            self._taken = None
        return True

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._taken is None else 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        state = {"taken": self._taken, "skip_next": self._skip_next, "done": self._done}
        return {"cut": self._multiplier.state_dict(), **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._multiplier.load_state_dict(state["cut"])
        self._taken, self._skip_next, self._done = state["taken"], state["skip_next"], state["done"]
