"""A trial on replicas: gradients and losses averaged as DistributedDataParallel would, and failures shared.

What may fail on one replica alone is kept apart from what all of them wait for together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from grad_callbacks.measurement.sharding import sum_over_processes

Made = TypeVar("Made")

log = logging.getLogger("grad_callbacks")


def smallest_count(count: int, group: dist.ProcessGroup | None, device: torch.device) -> int:
    """The smallest ``count`` of all replicas; this one where there are no others."""
    if group is None:
        return count
    counts = torch.zeros(dist.get_world_size(group), device=device)
    counts[dist.get_rank(group)] = count
    return int(sum_over_processes(counts, group).min())


def mean_loss(loss: float, group: dist.ProcessGroup | None, device: torch.device) -> float:
    """The mean of all replicas' losses."""
    if group is None:
        return loss
    total = sum_over_processes(torch.tensor([loss], dtype=torch.float64, device=device), group)
    return float(total) / dist.get_world_size(group)


@torch.no_grad()
def packed_gradients(parameters: Sequence[Tensor]) -> Tensor:
    """All gradients, and which of them are there, in one tensor."""
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=given[0].device)
    return torch.cat([present, *(gradient.float().flatten() for gradient in given)])


@torch.no_grad()
def take_mean(parameters: Sequence[Tensor], summed: Tensor, count: int) -> None:
    """Give parameters the mean of ``count`` gradients, packed and added up; one that no replica has stays None."""
    present, *gradients = torch.split(summed, [len(parameters), *(p.numel() for p in parameters)])
    for parameter, gradient, is_there in zip(parameters, gradients, present.tolist(), strict=True):
        parameter.grad = (gradient / count).view_as(parameter).to(parameter.dtype) if is_there else None


def on_all_replicas(
    action: Callable[[], Made | None], group: dist.ProcessGroup | None, device: torch.device
) -> Made | None:
    """The result of an action; None on all replicas if it fails, or has none, on one of them."""
    made = None
    try:
        made = action()
    except Exception as error:  # memory that does not suffice for a second copy, an optimizer that takes none
        log.warning("no trial could be held, or not with one of the remedies: %s", error)
    return made if smallest_count(int(made is not None), group, device) else None
