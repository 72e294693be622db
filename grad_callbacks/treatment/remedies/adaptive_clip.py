"""Clip gradients by a norm that follows the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from grad_callbacks._utils.validation import at_least, between, positive
from grad_callbacks.events import Evidence
from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep

Method = Literal["zscore", "percentile"]

ALPHA = 0.97  # of ZClip's moving average
WINDOW = 1000  # norms of which the percentile is taken
OUTLIER = 5.0  # multiple of the usual norm beyond which a norm does not enter, until there are enough for a deviation
LEAST_DEVIATION = 1e-6  # relative to the mean


class AdaptiveClip(Remedy):
    """Clips by a threshold that is computed from the norms of earlier steps.

    ``"zscore"`` is ZClip's: a norm more than ``z`` deviations above a moving average is reduced to the average and
    ``z`` squared over its own score in deviations, so the further out it is, the closer to the average it comes.
    ``"percentile"`` is AutoClip's: whatever exceeds the ``percentile`` of the last 1000 norms is reduced to that.

    Other than there, no spike moves the threshold: norms that are not finite, zero or outlying are never taken in.
    Outlying is what the z-score clips; with the percentile, and until ``warmup`` norms are known, what exceeds 5 times
    the usual norm. So a level that jumps up for good is not followed. Norms are taken in from the first step that the
    remedy is shown, clipping starts with an alert; if fewer than ``warmup`` norms are known by then, the usual norm
    that the alert reports stands in for them.

    Everything is computed where the gradients are; the host waits for nothing.

    References:
        Kumar et al. 2025, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv 2504.02507, sec. 3 (average
        0.97, 25 steps of warm-up, z 2.5). Seetharaman et al. 2020, "AutoClip: Adaptive Gradient Clipping for Source
        Separation Networks", arXiv 2007.14469 (percentile 10 of all norms).

    Args:
        method: How the threshold is computed.
        z: Deviations above the average from which on a norm is clipped, for ``"zscore"``.
        percentile: Between 0 and 100, for ``"percentile"``.
        warmup: Norms needed before there is a threshold of their own.

    Raises:
        ValueError: If an argument is wrong.
    """

    clips = True
    bounds_steps = True
    changes_gradients = True

    def __init__(self, method: Method = "zscore", z: float = 2.5, percentile: float = 10.0, warmup: int = 25) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
        self.method = method
        z, share = positive("z", z), between("percentile", percentile, 0.0, 100.0) / 100
        warmup = at_least("warmup", warmup, 1)
        self._threshold = _ZScore(z, warmup) if method == "zscore" else _Percentile(share, warmup)
        self._engaged = False

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Clip from this step on. Can be switched on once; cannot mend a non-finite gradient."""
        if self._engaged or not step.reading.is_finite:
            return None
        self._engaged = True
        reference = evidence.get("reference", step.reading.norm)
        self._threshold.assume(reference, step.norm_on_device.device)
        return {"method": self.method, "reference": reference, "norm": step.reading.norm}

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
        self._told = [0.0, 0.0, 0.0]
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
        usual = torch.where(count >= self._warmup, mean + self._z * deviation, OUTLIER * mean)
        enters = torch.isfinite(norm) & (norm > 0) & ((count == 0) | (norm <= usual))
        weight = torch.clamp(1 / (count + 1), min=1 - ALPHA)  # a plain mean at first
        change = norm - mean
        variance = (1 - weight) * (self._on(norm.device)[2] + weight * change**2)
        fed = torch.stack([count + 1, mean + weight * change, variance])
        self._numbers = fed.where(enters, self._on(norm.device))

    def assume(self, reference: float, device: torch.device) -> None:
        """Take ``reference`` for the average if too few norms are known."""
        known = self._on(device)
        self._numbers = known.where(known[0] >= self._warmup, to_device([self._warmup, reference, 0.0], device))

    def state_dict(self) -> list[float]:
        """Return the three numbers."""
        return self._told if self._numbers is None else self._numbers.tolist()

    def load_state_dict(self, state: list[float]) -> None:
        """Continue from :meth:`state_dict`."""
        self._told, self._numbers = list(state), None

    def _known(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        count, mean, variance = self._on(device).unbind()
        return count, mean, variance.sqrt() + LEAST_DEVIATION * mean

    def _on(self, device: torch.device) -> Tensor:
        if self._numbers is None:
            self._numbers = to_device(self._told, device)
        return self._numbers


class _Percentile:
    """The percentile of the last norms. They stay on the device, in a ring; what is not filled yet is NaN."""

    def __init__(self, share: float, warmup: int) -> None:
        self._share, self._warmup = share, warmup
        self._told: list[float] = []
        self._count = 0
        self._norms: Tensor | None = None
        self._fed: Tensor | None = None  # how many were taken in, a scalar

    def limit(self, norm: Tensor) -> Tensor:
        """What norms are to be clipped to; infinite while too few are known."""
        norms, fed = self._on(norm.device)
        limit = torch.nanquantile(norms, self._share)
        return limit.where(fed >= self._warmup, torch.full_like(limit, torch.inf))

    def feed(self, norm: Tensor) -> None:
        """Take ``norm`` in, in the place of the oldest."""
        norms, fed = self._on(norm.device)
        enters = torch.isfinite(norm) & (norm > 0) & ((fed == 0) | (norm <= OUTLIER * torch.nanmedian(norms)))
        place = torch.arange(WINDOW, device=norm.device) == fed % WINDOW
        self._norms = norm.where(place & enters, norms)
        self._fed = fed + enters

    def assume(self, reference: float, device: torch.device) -> None:
        """Take ``reference`` for all norms of the warm-up if too few are known."""
        norms, fed = self._on(device)
        is_known = fed >= self._warmup
        assumed = torch.full_like(norms, torch.nan)
        assumed[: self._warmup] = reference
        self._norms = norms.where(is_known, assumed)
        self._fed = fed.where(is_known, torch.full_like(fed, self._warmup))

    def state_dict(self) -> dict[str, Any]:
        """Return the norms, as they lie in the ring, and how many were taken in."""
        if self._norms is None or self._fed is None:
            return {"norms": self._told, "fed": self._count}
        return {"norms": self._norms[: int(self._fed)].tolist(), "fed": int(self._fed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._told, self._count = list(state["norms"]), state["fed"]
        self._norms = self._fed = None

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._norms is None or self._fed is None:
            self._norms = to_device(self._told + [torch.nan] * (WINDOW - len(self._told)), device)
            self._fed = torch.full((), self._count, device=device)
        return self._norms, self._fed
