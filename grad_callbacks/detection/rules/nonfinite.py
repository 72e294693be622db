"""Non-finite gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.episode import Episode
from grad_callbacks.detection.rules.leeway import LEEWAY, NO_LEEWAY, Leeway
from grad_callbacks.detection.rules.spans import SPANS
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import QuietBlock, Reading


@dataclass(frozen=True)
class NonFiniteThresholds(Thresholds):
    """Thresholds of :class:`~grad_callbacks.NonFinite`."""

    max_overflows: int = threshold(
        15,
        "overflows in a row that are the loss scaler at work",
        unit="readings",
        source="formula: a scaler that starts at 65536 and halves its scale at each overflow is at 2 after 15 of them",
    )


LIMITS = NonFiniteThresholds()


class NonFinite(Rule):
    """Alerts at the first gradient with a NaN or infinite entry.

    A loss that is not finite for 10 readings in a row raises one too, even if all gradients are finite: where the
    backward pass drops NaN (``torch.where``, ``clamp``, ``relu``) nothing is learned any more.

    A loss scaler provokes overflows to find its scale, and skips those steps itself. They raise an alert only when they
    do not stop.

    Args:
        max_overflows: Overflows in a row that are the loss scaler at work.

    Raises:
        ValueError: If ``max_overflows`` is below 1.
    """

    kind = "nonfinite"
    order = 30
    colour = "#b3154f"
    comes_singly = True

    def __init__(self, max_overflows: int = LIMITS.max_overflows) -> None:
        self.max_overflows = at_least("max_overflows", max_overflows, 1)
        self._episode = Episode()
        self._overflows = 0
        self._lost = 0  # losses in a row that were not finite

    @property
    def active(self) -> bool:
        """True until 20 finite readings have passed since the last alarm."""
        return self._episode.active

    def judge(self, reading: Reading) -> Alert | None:
        """Raise a critical alert at the first bad reading of an episode."""
        self._overflows = self._overflows + 1 if reading.overflow else 0
        if reading.overflow and self._overflows <= self.max_overflows:
            return None
        if reading.has_loss:
            self._lost = 0 if math.isfinite(reading.loss) else self._lost + 1
        if reading.is_finite and not reading.overflow and self._lost < SPANS.level:
            self._episode.calm()
            return None
        return self._alert(reading) if self._episode.alarm() == 1 else None

    def leeway(self) -> Leeway:
        """None during an episode, else for any finite reading."""
        return NO_LEEWAY if self.active else Leeway(LEEWAY.any)

    def take_in(self, block: QuietBlock) -> None:
        """Count finite readings."""
        self._overflows = 0
        if block.latest.has_loss:
            self._lost = 0
        self._episode.calm(len(block))

    def _alert(self, reading: Reading) -> Alert:
        if reading.is_finite and not reading.overflow:
            evidence = {"losses_in_a_row": float(self._lost), "norm": reading.norm}
            message = (
                f"the loss was NaN or infinite in {self._lost} readings in a row, although the gradients are finite"
            )
            cause = "undefined operation"
            advice = (
                "clamp the inputs of log, sqrt, exp and division; find the operation with "
                "torch.autograd.set_detect_anomaly(True)"
            )
            return Alert(
                self.kind, "critical", reading.step, (), message, Evidence(evidence), cause, advice, reading.optimizer
            )
        bad = ~np.isfinite(reading.layer_norms)
        evidence = {"nonfinite_parameters": float(reading.nonfinite), "layers": float(bad.sum())}
        seen = f"the gradients of {reading.nonfinite} parameters in {bad.sum()} layers contain NaN or infinity"
        if reading.overflow:
            evidence["overflows_in_a_row"] = float(self._overflows)
            message = f"the loss scaler found {self._overflows} overflows in a row and skipped all these steps"
            cause = "16-bit overflow"
            advice = "train in bf16-mixed; or keep the loss and normalisations in float32"
        elif reading.weight_norms is not None and not np.isfinite(reading.weight_norms).all():
            message = f"{seen}, and so do weights, since an earlier step"
            cause = "non-finite weights"
            advice = "go back to the last checkpoint with finite weights; then lower the learning rate or clip by norm"
        else:
            message = seen
            cause = "bad batch"
            advice = "skip such steps (SkipStep); check the batch for NaN; clamp the inputs of log, sqrt and division"
        layers = tuple(name for name, is_bad in zip(reading.layers.names, bad, strict=True) if is_bad)
        return Alert(
            self.kind, "critical", reading.step, layers, message, Evidence(evidence), cause, advice, reading.optimizer
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "episode": self._episode.state_dict(),
            "overflows": self._overflows,
            "lost": self._lost,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._episode.load_state_dict(state["episode"])
        self._overflows, self._lost = state["overflows"], state["lost"]
