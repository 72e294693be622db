"""Clip gradients by their global norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import positive
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Evidence, kind_named
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class ClipNormThresholds(Thresholds):
    """The numbers of :class:`ClipNorm`."""

    usual: float = threshold(
        2.0,
        "threshold, if it is not given",
        unit="x usual norm",
        source="Pascanu, Mikolov & Bengio 2013, sec. 3.2: half to ten times the average norm",
    )


LIMITS = ClipNormThresholds()


class ClipNorm(Remedy):
    """Rescales all gradients together so that their global norm is at most ``max_norm``.

    Uses the norm that was already measured: clipping costs one multiplication, and only where the norm is larger.
    Reference: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Args:
        max_norm: The threshold, in the gradients' own scale. By default twice the run's usual norm as the alert
            reports it; Pascanu et al. (sec. 3.2) advise half to ten times the average norm.

    Raises:
        ValueError: If ``max_norm`` is not above 0.
    """

    clips = True
    bounds_steps = True
    changes_gradients = True

    def __init__(self, max_norm: float | None = None) -> None:
        self.max_norm = None if max_norm is None else positive("max_norm", max_norm)
        self.takes_bound_from_alert = max_norm is None
        self._threshold: float | None = None

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Fix the threshold; clip from this step on.

        Once only, not for a non-finite gradient, and not for an explosion from the start if there is neither a
        threshold nor a usual norm: its own is no measure.
        """
        if self._threshold is not None or not step.reading.is_finite:
            return None
        usual = _usual(step, evidence)
        if self.max_norm is None and usual is None:
            return None
        self._threshold = LIMITS.usual * usual if self.max_norm is None and usual is not None else self.max_norm
        return {"max_norm": self._threshold, "norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip if the norm exceeds the threshold."""
        return False if self._threshold is None else step.limit_norm(self._threshold)

    def release(self, step: OptimizerStep) -> bool:
        """Stop clipping; an alert switches it on again."""
        was_on = self._threshold is not None
        self._threshold = None
        return was_on

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._threshold is None else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the threshold."""
        return {"threshold": self._threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._threshold = state["threshold"]


def _usual(step: OptimizerStep, evidence: Evidence) -> float | None:
    """The usual norm as the alert reports it; else the present one, unless it explodes from the start."""
    alert = step.run_state.alert if step.run_state is not None else None
    if evidence.reference is None and step.run_state is not None and alert is not None:
        is_early = step.run_state.readings < SPANS.level
        return None if is_early and kind_named(alert.kind).is_bounded_by_clipping else step.reading.norm
    return step.reading.norm if evidence.reference is None else evidence.reference
