"""Clip gradients by a norm that follows the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks._utils.validation import at_least, positive
from grad_callbacks.events import Evidence
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep

_ZCLIP = "Kumar et al. 2025 (ZClip), sec. 3"


@dataclass(frozen=True)
class AdaptiveClipThresholds(Thresholds):
    """The numbers of :class:`AdaptiveClip`."""

    z: float = threshold(
        2.5, "deviations above the average from which on a norm is clipped", unit="standard deviations", source=_ZCLIP
    )
    warmup: int = threshold(25, "norms needed before there is a threshold", unit="readings", source=_ZCLIP)
    decay: float = threshold(0.97, "decay of the moving average of the norms", unit="1", source=_ZCLIP)
    outlier: float = threshold(
        5.0,
        "norm that is not taken in, until there are enough for a deviation",
        unit="x usual norm",
        source="not measured",
    )


LIMITS = AdaptiveClipThresholds()


class AdaptiveClip(Remedy):
    """Clips by a threshold that is computed from the norms of earlier steps.

    As ZClip does: a norm more than ``z`` deviations above a moving average is reduced to the average and
    ``z`` squared over its own score in deviations, so the further out it is, the closer to the average it comes.

    Unlike there, no spike changes the threshold: norms that are not finite, zero or outlying are never taken in.
    A norm is outlying if it is clipped or, until ``warmup`` norms are known, exceeds 5 times the usual norm. So the
    threshold does not follow a level that jumps up for good. Norms are taken in from the first step on, clipping starts
    with an alert; if fewer than ``warmup`` norms are known by then, the usual norm that the alert reports is used
    instead of them.

    Everything is computed on the device of the gradients, without waiting for it.

    References:
        Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv 2504.02507, sec. 3 (average
        0.97, 25 steps of warm-up, z 2.5).

    Args:
        z: Standard deviations above the average from which on a norm is clipped.
        warmup: Norms needed before there is a threshold.

    Raises:
        ValueError: If an argument is wrong.
    """

    clips = True
    bounds_steps = True
    changes_gradients = True

    def __init__(self, z: float = LIMITS.z, warmup: int = LIMITS.warmup) -> None:
        self._threshold = _ZScore(positive("z", z), at_least("warmup", warmup, 1))
        self._engaged = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Clip from this step on. Once only, and not for a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        self._engaged = True
        reference = step.reading.norm if evidence.reference is None else evidence.reference
        self._threshold.assume(reference, step.norm_on_device.device)
        return {"reference": reference, "norm": step.reading.norm}

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Take the norm in unless it is outlying; once switched on, clip if it exceeds the threshold."""
        if step.is_taken:
            return False
        norm = step.norm_on_device
        limit = self._threshold.limit(norm)  # before the norm is taken in
        self._threshold.feed(norm)
        return step.limit_norm(limit) if self._engaged else False

    def release(self, step: OptimizerStep) -> bool:
        """Stop clipping; an alert switches it on again."""
        was_on, self._engaged = self._engaged, False
        return was_on

    def state_dict(self) -> dict[str, Any]:
        """Return whether it is switched on, and what is known of the norms."""
        return {"engaged": self._engaged, "threshold": self._threshold.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._engaged = state["engaged"]
        self._threshold.load_state_dict(state["threshold"])


class _ZScore:
    """The moving average's threshold. All numbers stay on the device: how many, their mean and variance."""

    def __init__(self, z: float, warmup: int) -> None:
        self._z, self._warmup = z, warmup
        self._loaded = [0.0, 0.0, 0.0]
        self._numbers: Tensor | None = None

    def limit(self, norm: Tensor) -> Tensor:
        """What ``norm`` is to be clipped to; infinite if it is not."""
        count, mean, deviation = self._known(norm.device)
        score = (norm - mean) / deviation
        limit = mean + self._z**2 * deviation / score
        return limit.where((count >= self._warmup) & (score > self._z), torch.full_like(limit, torch.inf))

    def feed(self, norm: Tensor) -> None:
        """Take ``norm`` in."""
        count, mean, deviation = self._known(norm.device)
        usual = torch.where(count >= self._warmup, mean + self._z * deviation, LIMITS.outlier * mean)
        enters = torch.isfinite(norm) & (norm > 0) & ((count == 0) | (norm <= usual))
        weight = torch.clamp(1 / (count + 1), min=1 - LIMITS.decay)  # a plain mean at first
        change = norm - mean
        variance = (1 - weight) * (self._on(norm.device)[2] + weight * change**2)
        fed = torch.stack([count + 1, mean + weight * change, variance])
        self._numbers = fed.where(enters, self._on(norm.device))

    def assume(self, reference: float, device: torch.device) -> None:
        """Use ``reference`` as the average if too few norms are known."""
        known = self._on(device)
        self._numbers = known.where(known[0] >= self._warmup, to_device([self._warmup, reference, 0.0], device))

    def state_dict(self) -> list[float]:
        """Return the three numbers."""
        return self._loaded if self._numbers is None else self._numbers.tolist()

    def load_state_dict(self, state: list[float]) -> None:
        """Continue from :meth:`state_dict`."""
        self._loaded, self._numbers = list(state), None

    def _known(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        count, mean, variance = self._on(device).unbind()
        return count, mean, variance.sqrt() + torch.finfo(torch.float32).eps * mean

    def _on(self, device: torch.device) -> Tensor:
        if self._numbers is None:
            self._numbers = to_device(self._loaded, device)
        return self._numbers
