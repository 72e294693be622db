"""Compares a batch with those before it, to tell whether it is an outlier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold
from grad_callbacks.measurement.batch import tensors_in


@dataclass(frozen=True)
class BatchThresholds(Thresholds):
    """Thresholds of an outlying batch."""

    loss_ratio: float = threshold(
        2.0,
        "a batch whose loss is below this is no outlier",
        unit="x median loss of the batches before",
        source="not measured",
    )
    deviations: float = threshold(
        6.0,
        "robust standard deviations of the log loss beyond which a loss is an outlier",
        unit="standard deviations",
        source="OLMo-core skips steps at 6 standard deviations of the loss",
    )
    scale_ratio: float = threshold(
        5.0,
        "entries that are larger than those of the batch before by more are out of range",
        unit="x size of the batch before",
        source="standardised inputs agree within some percent; not measured",
    )
    smallest_spread: float = threshold(
        0.1, "floor of the spread of log losses, for a loss that does not change", unit="1", source="not measured"
    )
    window: int = threshold(20, "losses before to compare with", unit="steps", source="not measured")
    fewest_losses: int = threshold(3, "fewer say nothing", unit="steps", source="not measured")
    deviation_to_sigma: float = threshold(
        1.4826, "standard deviation over the median absolute one", unit="1", source="formula: of a normal distribution"
    )


BATCH_LIMITS = BatchThresholds()


@dataclass(frozen=True)
class BatchEvidence:
    """How a batch compares with those before it.

    Attributes:
        nonfinite: Number of its NaN or infinite entries.
        loss_ratio: Its loss over the median of the last 20; NaN if unknown.
        deviations: Robust z-score of its log loss among them; NaN if unknown.
        scale_ratio: Largest ratio of a tensor's root mean square, or of its largest entry if that is larger, to that
            of its counterpart in the batch before; NaN if unknown.
    """

    nonfinite: int = 0
    loss_ratio: float = math.nan
    deviations: float = math.nan
    scale_ratio: float = math.nan

    @property
    def stands_out(self) -> bool:
        """True if its loss is far above those before; a loss that is not finite is."""
        return self.loss_ratio > BATCH_LIMITS.loss_ratio and self.deviations > BATCH_LIMITS.deviations

    @property
    def is_out_of_range(self) -> bool:
        """True if its entries are far larger than those of the batch before."""
        return self.scale_ratio > BATCH_LIMITS.scale_ratio

    @classmethod
    def of(cls, batch: Any, previous: Any, loss: float, losses: Sequence[float]) -> BatchEvidence:
        """Compare ``batch`` and its ``loss`` with the batch before and with the losses before, the latest last."""
        nonfinite = sum(int((~torch.isfinite(tensor)).sum()) for tensor in _numbers(batch))
        ratio, deviations = _among(loss, losses)
        return cls(nonfinite, ratio, deviations, _scale_ratio(batch, previous))

    def evidence(self) -> dict[str, float]:
        """Return the finite numbers by name."""
        found = {
            "batch_nonfinite": float(self.nonfinite),
            "batch_loss_ratio": self.loss_ratio,
            "batch_loss_deviations": self.deviations,
            "batch_scale_ratio": self.scale_ratio,
        }
        return {name: value for name, value in found.items() if math.isfinite(value) and value != 0}


def _numbers(batch: Any) -> list[Tensor]:
    found = []
    for tensor in tensors_in(batch):
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout is torch.strided and tensor.numel():
            found.append(tensor.detach())
    return found


def _among(loss: float, losses: Sequence[float]) -> tuple[float, float]:
    known = [value for value in losses if math.isfinite(value) and value > 0][-BATCH_LIMITS.window :]
    if len(known) < BATCH_LIMITS.fewest_losses or math.isnan(loss) or loss <= 0:
        return math.nan, math.nan
    logs = [math.log(value) for value in known]
    middle = median(logs)
    spread = BATCH_LIMITS.deviation_to_sigma * median(abs(value - middle) for value in logs)
    spread = max(spread, BATCH_LIMITS.smallest_spread)
    if math.isinf(loss):
        return math.inf, math.inf
    return loss / math.exp(middle), (math.log(loss) - middle) / spread


def _scale_ratio(batch: Any, previous: Any) -> float:
    ratio = math.nan
    for mine, other in zip(_numbers(batch), _numbers(previous), strict=False):
        if mine.is_complex() or other.is_complex() or mine.shape[1:] != other.shape[1:]:
            continue
        for size in (_rms, _largest):
            here, there = size(mine), size(other)
            if math.isfinite(here) and math.isfinite(there) and there > 0:
                ratio = here / there if math.isnan(ratio) else max(ratio, here / there)
    return ratio


def _rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def _largest(tensor: Tensor) -> float:
    # Heavy tails have a very large entry now and then: its root counts.
    return math.sqrt(float(tensor.double().abs().max()))
