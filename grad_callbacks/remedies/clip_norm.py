"""Clip gradients by their global norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grad_callbacks.checks import positive
from grad_callbacks.remedies.optimizer_step import OptimizerStep

LASTING = 0.5  # of the run's usual norm
SINGLE = 5.0  # the same after a single bad batch: what raises no alarm is not clipped


class ClipNorm:
    """Rescales all gradients together so that their global norm is at most ``max_norm``.

    Uses the norm that was already measured: clipping costs one multiplication, and only where it is due.
    Reference: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks",
    algorithm 1.

    Args:
        max_norm: The threshold, in the gradients' own scale. By default half of the run's usual norm as the
            alert reports it, the lower end of what Pascanu et al. (sec. 3.2) advise: half to ten times the
            average norm. If a batch was to blame that stands out from its neighbours, that holds for this batch only;
            later ones are clipped at five times the usual norm: they have done nothing wrong, and a run that begins to
            learn has larger gradients.

    Raises:
        ValueError: If ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float | None = None) -> None:
        self.max_norm = None if max_norm is None else positive("max_norm", max_norm)
        self._threshold: float | None = None
        self._now: float | None = None  # the threshold of the step that it was switched on for

    def engage(self, step: OptimizerStep, evidence: Mapping[str, float]) -> dict[str, Any] | None:
        """Fix the threshold; clip from this step on. Can be switched on once; cannot mend a non-finite gradient."""
        if self._threshold is not None or not step.reading.is_finite:
            return None
        usual = evidence.get("reference", step.reading.norm)
        self._now = self._threshold = self.max_norm or LASTING * usual
        if self.max_norm is None and _is_one_batch(step, evidence):
            self._threshold = SINGLE * usual
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

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds."""
        return {"threshold": self._threshold, "now": self._now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._threshold, self._now = state["threshold"], state["now"]


def _is_one_batch(step: OptimizerStep, evidence: Mapping[str, float]) -> bool:
    """True if the diagnosis has looked at the batch, and blames it for a single spike."""
    alert = step.scene.alert if step.scene is not None else None
    is_told = any(name.startswith("batch_") for name in evidence)
    return alert is not None and (alert.severity, alert.cause) == ("warning", "bad batch") and is_told
