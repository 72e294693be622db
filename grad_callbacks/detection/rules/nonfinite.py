"""Non-finite gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from grad_callbacks._utils.validation import at_least
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.episode import Episode
from grad_callbacks.events import Alert, Evidence
from grad_callbacks.measurement import Reading

LOST = 10  # losses in a row that are not finite; one or two happen in healthy runs, and change nothing


class NonFinite(Rule):
    """Alerts at the first gradient with a NaN or infinite entry.

    A loss that is not finite for 10 readings in a row is alarming too, even if all gradients are finite: where NaN is
    cut out on its way back (``torch.where``, ``clamp``, ``relu``) nothing is learned any more.

    A loss scaler provokes overflows to find its scale, and skips those steps itself. They are alarming only
    when they do not stop.

    Args:
        max_overflows: Overflows in a row that are the loss scaler at work. A scaler that starts at 65536 and
            halves its scale at each overflow is at 2 after 15 of them.
    """

    kind = "nonfinite"
    order = 30
    colour = "#b3154f"
    comes_singly = True

    def __init__(self, max_overflows: int = 15) -> None:
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
        if reading.is_finite and not reading.overflow and self._lost < LOST:
            self._episode.calm()
            return None
        return self._alert(reading) if self._episode.alarm() == 1 else None

    def _alert(self, reading: Reading) -> Alert:
        if reading.is_finite and not reading.overflow:
            evidence = {"losses_in_a_row": float(self._lost), "norm": reading.norm}
            message = (
                f"the loss was not finite in {self._lost} readings in a row, and gradients are finite all the same"
            )
            cause = "undefined operation"
            advice = (
                "clamp what goes into log, sqrt, exp and division; find it: torch.autograd.set_detect_anomaly(True)"
            )
            return Alert(
                self.kind, "critical", reading.step, (), message, Evidence(evidence), cause, advice, reading.optimizer
            )
        bad = ~np.isfinite(reading.layer_norms)
        evidence = {"nonfinite_parameters": float(reading.nonfinite), "layers": float(bad.sum())}
        seen = f"gradients of {reading.nonfinite} parameters in {bad.sum()} layers have NaN or infinite entries"
        if reading.overflow:
            evidence["overflows_in_a_row"] = float(self._overflows)
            message = f"the loss scaler met {self._overflows} overflows in a row; no step was taken since the first"
            cause = "16-bit overflow"
            advice = "train in bf16-mixed; or keep the loss and normalisations in float32"
        elif reading.weight_norms is not None and not np.isfinite(reading.weight_norms).all():
            message = f"{seen}, and so have weights: an earlier step has spoilt them"
            cause = "non-finite weights"
            advice = "go back to the last checkpoint with finite weights; then lower the learning rate or clip by norm"
        else:
            message = seen
            cause = "bad batch"
            advice = "skip such steps (SkipStep); check the batch for NaN; clamp what goes into log, sqrt and division"
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
