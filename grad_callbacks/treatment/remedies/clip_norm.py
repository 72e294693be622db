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

    lasting: float = threshold(
        0.5,
        "threshold, if it is not given",
        unit="x usual norm",
        source="Pascanu, Mikolov & Bengio 2013, sec. 3.2: half to ten times the average norm",
    )
    lasting_for_short_steps: float = threshold(
        2.0,
        "largest threshold, where the step that it allows is short; where it is long, diverging runs go on diverging",
        unit="x usual norm",
        source="measured: two recurrent nets, whose gradients grew as they began to learn, lost a tenth of their "
        "accuracy to half of the usual norm",
    )
    long_step: float = threshold(
        0.1,
        "how far SGD, with its momentum, moves the weights by a long step",
        unit="share of the weights' norm",
        source="not measured",
    )
    after_bad_batch: float = threshold(
        5.0,
        "threshold after a single bad batch: what raises no alert is not clipped",
        unit="x usual norm",
        source="not measured",
    )


LIMITS = ClipNormThresholds()


class ClipNorm(Remedy):
    """Rescales all gradients together so that their global norm is at most ``max_norm``.

    Uses the norm that was already measured: clipping costs one multiplication, and only where the norm is larger.
    Reference: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Args:
        max_norm: The threshold, in the gradients' own scale. By default half of the run's usual norm as the
            alert reports it, the lower end of what Pascanu et al. (sec. 3.2) advise: half to ten times the
            average norm. Where it is known how far a step would move the weights, up to twice the usual norm as long
            as the weights move by no more than a tenth of their norm: two recurrent nets, whose gradients grew as they
            began to learn, lost a tenth of their accuracy to half of it. If the cause is a batch that stands out from
            its neighbours, half holds for this batch only; later ones are clipped at five times the usual norm: they
            are not the cause, and a run that begins to learn has larger gradients.

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
        self._now: float | None = None  # the threshold of the step that it was switched on for

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Fix the threshold; clip from this step on.

        Once only, not for a non-finite gradient, and not for an explosion from the start if there is neither a
        threshold nor a usual norm: its own is no measure.
        """
        if self._threshold is not None or not step.reading.is_finite:
            return None
        usual = _usual(step, evidence)
        if self.max_norm is not None:
            self._now = self._threshold = self.max_norm
        elif usual is None:
            return None
        elif _is_one_batch(step, evidence):
            self._now, self._threshold = LIMITS.lasting * usual, LIMITS.after_bad_batch * usual
        else:
            self._now = self._threshold = _lasting(step, usual)
        return {"max_norm": self._threshold, "norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Clip if the norm exceeds the threshold."""
        threshold, self._now = self._now or self._threshold, None
        return False if threshold is None else step.limit_norm(threshold)

    def release(self, step: OptimizerStep) -> bool:
        """Stop clipping; an alert switches it on again."""
        was_on = self._threshold is not None
        self._threshold = self._now = None
        return was_on

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if self._threshold is None and self._now is None else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds."""
        return {"threshold": self._threshold, "now": self._now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._threshold, self._now = state["threshold"], state["now"]


def _usual(step: OptimizerStep, evidence: Evidence) -> float | None:
    """The usual norm as the alert reports it; else the present one, unless it explodes from the start."""
    alert = step.run_state.alert if step.run_state is not None else None
    if evidence.reference is None and step.run_state is not None and alert is not None:
        is_early = step.run_state.readings < SPANS.level
        return None if is_early and kind_named(alert.kind).is_bounded_by_clipping else step.reading.norm
    return step.reading.norm if evidence.reference is None else evidence.reference


def _lasting(step: OptimizerStep, usual: float) -> float:
    """Half of the usual norm, or up to twice it if the step that it allows is short."""
    displacement = step.reading.displacement  # NaN where it cannot be predicted
    short = step.reading.norm * LIMITS.long_step / displacement if displacement > 0 else 0.0
    return min(max(LIMITS.lasting * usual, short), LIMITS.lasting_for_short_steps * usual)


def _is_one_batch(step: OptimizerStep, evidence: Evidence) -> bool:
    """True if the diagnosis has looked at the batch, and it is the cause of a single spike."""
    alert = step.run_state.alert if step.run_state is not None else None
    is_single = alert is not None and (alert.severity, alert.cause) == ("warning", "bad batch")
    return is_single and evidence.is_of_batch
