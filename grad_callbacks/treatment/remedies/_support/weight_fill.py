"""New weights made of the present ones: orthogonal, or random with a given variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold

Scheme = Literal["lsuv", "orthogonal", "he", "xavier"]


@dataclass(frozen=True)
class WeightFillThresholds(Thresholds):
    """The numbers of :func:`refill` and :func:`can_be_orthogonal`."""

    largest_orthogonal: int = threshold(
        2048,
        "shorter side of a matrix above which it is not made orthogonal: that takes its cube of operations",
        unit="rows or columns",
        source="not measured",
    )


LIMITS = WeightFillThresholds()


def refill(weight: Tensor, scheme: Scheme, gain: float, seed: int) -> None:
    """Give a weight fresh entries, made of those it has; only one without any spread is drawn.

    Args:
        weight: Is changed in place.
        scheme: ``"lsuv"`` and ``"orthogonal"`` make it orthogonal unless it is too large, ``"xavier"`` gives it the
            variance of Glorot & Bengio 2010, ``"he"`` that of He et al. 2015.
        gain: Of an orthogonal or ``"he"`` weight.
        seed: For a weight that is drawn.
    """
    matrix = weight.detach().flatten(1).float()
    rounding = torch.finfo(matrix.dtype).eps * float(matrix.abs().max())
    if not bool(torch.isfinite(matrix).all()) or float(matrix.std()) <= rounding:  # one constant
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(matrix.shape, generator=generator).to(matrix.device)
    matrix = matrix / matrix.square().mean().sqrt()  # entries of size 1, whatever they were
    rows, columns = matrix.shape
    if scheme in ("lsuv", "orthogonal") and can_be_orthogonal(matrix):
        weight.copy_((gain * orthogonal(matrix)).view_as(weight).to(weight.dtype))
        return
    variance = 2.0 / (rows + columns) if scheme == "xavier" else gain**2 / columns
    weight.copy_((matrix * math.sqrt(variance)).view_as(weight).to(weight.dtype))


def can_be_orthogonal(matrix: Tensor) -> bool:
    """True unless a matrix is too large to be made orthogonal."""
    return min(matrix.shape) <= LIMITS.largest_orthogonal


def orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal part of a matrix by its QR decomposition, with signs that make it unique."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t()
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r)).where(torch.diagonal(r) != 0, torch.ones(()).to(q))
    made: Tensor = q if tall is matrix else q.t()
    return made
