"""The L2 norm of each gradient, in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grad_callbacks._utils.thresholds import Thresholds, threshold


@dataclass(frozen=True)
class NormsThresholds(Thresholds):
    """Thresholds of the norms of gradients."""

    float32_min: float = threshold(
        1e-17,
        "smaller norms are computed again in float64: the squares of their entries lose digits in float32",
        unit="L2 norm",
        source="IEEE 754: the smallest normal float32 is 1.2e-38",
    )


LIMITS = NormsThresholds()


def as_real(tensor: Tensor) -> Tensor:
    """Return a complex tensor as real numbers with one more dimension of 2; any other tensor as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def l2_norms(tensors: Sequence[Tensor | None], device: torch.device, exact: bool = False) -> Tensor:
    """Return the L2 norm of each tensor, with one kernel per device and precision.

    Norms are accumulated in float32 whatever the tensors' type (float64 stays float64): the norm of float16
    gradients would overflow at 65504. A norm beyond 1.8e19 reads as infinite, one below 1e-22 as zero.

    Args:
        tensors: Real, dense tensors; None counts as zero.
        device: Where the norms are gathered (see :func:`common_device`).
        exact: On the host, compute norms again in float64 that have overflowed or are so small that digits are lost.
            (On an accelerator that would mean waiting.)

    Returns:
        Float64, shape ``(len(tensors),)``, on ``device``.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    # By functions written in C: with a thousand tensors this matters.
    dtypes, devices = set(map(attrgetter("dtype"), present)), set(map(Tensor.get_device, present))
    if len(dtypes) == len(devices) == 1 and len(present) == len(tensors):
        return _norms_of_one_kind(present, device, exact)
    norms = [torch.zeros((), dtype=torch.float64, device=device)] * len(tensors)
    for kind in product(devices, dtypes):
        mine = {i: t for i, t in enumerate(tensors) if t is not None and (t.get_device(), t.dtype) == kind}
        if mine:
            found = _norms_of_one_kind(list(mine.values()), device, exact)
            for index, norm in zip(mine, found.unbind(), strict=True):
                norms[index] = norm
    return torch.stack(norms) if norms else torch.zeros(0, dtype=torch.float64)


def norms_on_host(tensors: list[Tensor], accumulate: torch.dtype) -> NDArray[np.float64]:
    """Return what :func:`l2_norms` returns for tensors of one type on the CPU, with the least that can be done.

    Norms that have overflowed stay so.

    Args:
        tensors: Real and dense, of one type, none of them empty.
        accumulate: float64 for tensors of that type, else float32.
    """
    found = torch._foreach_norm(tensors, 2, dtype=accumulate)
    norms = np.fromiter(map(Tensor.item, found), np.float64, len(found))  # sooner than a stack of them
    if accumulate == torch.float32 and np.minimum.reduce(norms) < LIMITS.float32_min:
        _recompute(norms, tensors)
    return norms


def common_device(devices: Sequence[torch.device]) -> torch.device:
    """The device where numbers about tensors on ``devices`` are gathered.

    That is the first accelerator if all are of a kind that can copy to the host without waiting, else the host.
    """
    return devices[0] if devices and all(device.type == "cuda" for device in devices) else torch.device("cpu")


def _norms_of_one_kind(tensors: list[Tensor], device: torch.device, exact: bool) -> Tensor:
    accumulate = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    # The foreach kernel is private in torch, yet it is what clip_grad_norm_ itself is built on.
    norms = torch.stack(torch._foreach_norm(tensors, 2, dtype=accumulate))
    norms = norms.to(device, torch.float64, non_blocking=device.type == "cuda")
    if exact and tensors[0].device.type == "cpu" and accumulate == torch.float32:
        _recompute(norms.numpy(), tensors)
    return norms


def _recompute(seen: NDArray[np.float64], tensors: Sequence[Tensor]) -> None:
    """Compute norms again in float64, in place, where float32 cannot hold them."""
    if np.minimum.reduce(seen) >= LIMITS.float32_min and np.maximum.reduce(seen) < math.inf:  # False for NaN
        return
    for index in np.flatnonzero(~((seen >= LIMITS.float32_min) & (seen < math.inf))).tolist():
        if tensors[index].numel():
            seen[index] = torch.linalg.vector_norm(tensors[index], dtype=torch.float64).numpy()
