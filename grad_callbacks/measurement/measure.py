"""Measures the norms of an optimizer's gradients, and leaves them on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from grad_callbacks.measurement.device_transfer import to_device
from grad_callbacks.measurement.layers import Layers
from grad_callbacks.measurement.norms import l2_norms
from grad_callbacks.measurement.sharding import sum_over_processes

_UNKNOWN = np.array([math.nan])


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is known of a step on the device, before any number was copied to the host.

    Attributes:
        layers: The layers that were measured.
        norms: L2 norm of each parameter's whole gradient, float64, shape ``(parameters,)``; 0 where there is none.
        present: 1 for each parameter that had a gradient, float64, shape ``(parameters,)``.
        companions: Other sums (see :func:`measure`), by name, each of shape ``(parameters,)``.
        scalars: Other numbers (see :func:`measure`), float64, shape ``(numbers,)``.
    """

    layers: Layers
    norms: Tensor
    present: Tensor
    companions: Mapping[str, Tensor]
    scalars: Tensor

    @cached_property
    def norm(self) -> Tensor:
        """The global norm, a scalar on the device; computed when somebody asks."""
        norm: Tensor = torch.linalg.vector_norm(self.norms)
        return norm


@torch.no_grad()
def measure(
    layers: Layers,
    loss_scale: float | Tensor = 1.0,
    companions: Mapping[str, Tensor] | None = None,
    scalars: Sequence[Tensor | None] = (),
    replicas: dist.ProcessGroup | None = None,
) -> Measurement | None:
    """Measure the gradients of ``layers`` in one pass.

    Where parameters are sharded this is a collective: every process takes part, and one ``all_reduce`` gives
    all of them the same numbers. Where they are replicated the gradients are the same already, and one ``all_reduce``
    of the scalars is all there is.

    Args:
        layers: The parameters to measure.
        loss_scale: Factor that the gradients still contain (a fused optimizer under a loss scaler).
        companions: Sums of squares over each parameter's local part, by name, shape ``(parameters,)``, to be
            added up over the processes in the same collective.
        scalars: Numbers that each process has of its own, such as its loss, one or several in a tensor: their means
            over the processes are taken. None is one unknown number, and stays so: NaN.
        replicas: The processes that train replicas of the same parameters, if they do.

    Returns:
        The measurement; None if no parameter has a gradient (where they are sharded, that is seen in ``present``).
    """
    if isinstance(loss_scale, Tensor):
        loss_scale = loss_scale.to(layers.device, non_blocking=layers.device.type == "cuda")
    companions = companions or {}
    shares = layers.gradient_shares()
    gradients = layers.gradients()
    found = [gradient for gradient in gradients if gradient is not None]
    present, is_any = layers.ones, bool(found)
    if len(found) < len(gradients) or not all(map(Tensor.numel, found)):
        held = [gradient is not None and gradient.numel() > 0 for gradient in gradients]
        present, is_any = to_device(held, layers.device), any(held)
    others = _gathered(scalars, layers.device)
    if layers.sharding is None:
        if not is_any:
            return None
        if replicas is not None:
            others = sum_over_processes(others, replicas) / replicas.size()
        norms = l2_norms(gradients, layers.device, exact=True)
        if isinstance(loss_scale, Tensor) or loss_scale != 1:
            norms = norms / loss_scale
    else:
        squares = (l2_norms(gradients, layers.device, exact=True) / loss_scale) ** 2
        weighted = torch.stack([squares, present, *companions.values()])
        weighted[:2] *= shares
        weighted[2:] *= layers.shares
        total = sum_over_processes(torch.cat([weighted.flatten(), others]))
        others = total[weighted.numel() :] / dist.get_world_size()
        squares, present, *sums = total[: weighted.numel()].view_as(weighted).unbind()
        companions = dict(zip(companions, sums, strict=True))
        present, norms = (present > 0).double(), squares.sqrt()
    return Measurement(layers, norms, present, companions, others)


def _gathered(numbers: Sequence[Tensor | None], device: torch.device) -> Tensor:
    if numbers and device.type != "cuda":  # on the host already, or copied there at once
        return torch.from_numpy(np.concatenate([_UNKNOWN if n is None else _values(n) for n in numbers]))
    if all(number is None for number in numbers):
        return to_device([math.nan] * len(numbers), device)
    unknown = to_device([math.nan], device)
    known = [number if number is None else number.detach().double().reshape(-1) for number in numbers]
    return torch.cat([unknown if n is None else n.to(device, non_blocking=device.type == "cuda") for n in known])


def _values(number: Tensor) -> NDArray[np.float64]:
    return number.detach().to("cpu", torch.float64).numpy().reshape(-1)
