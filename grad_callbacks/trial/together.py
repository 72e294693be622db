"""One step of a trial on replicas: gradients and losses averaged as DistributedDataParallel would."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from grad_callbacks.gradients.sharding import sum_over_processes


def fewest(count: int, group: dist.ProcessGroup | None, device: torch.device) -> int:
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
def average_gradients(parameters: Sequence[Tensor], group: dist.ProcessGroup | None) -> None:
    """Average the gradients over all replicas, in one collective; one that no replica has stays away."""
    if group is None:
        return
    world = dist.get_world_size(group)
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=given[0].device)
    flat = torch.cat([present, *(gradient.float().flatten() for gradient in given)])
    present, *summed = torch.split(sum_over_processes(flat, group), [len(given), *(g.numel() for g in given)])
    for parameter, gradient, is_there in zip(parameters, summed, present.tolist(), strict=True):
        parameter.grad = (gradient / world).view_as(parameter).to(parameter.dtype) if is_there else None
