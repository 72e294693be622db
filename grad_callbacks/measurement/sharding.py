"""Which part of each parameter this process holds, and how the parts add up to the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Sharding:
    """How an optimizer's parameters lie over the processes.

    A sum over a sharded tensor's entries is the sum of what each process holds, counted once: a part that
    several processes hold counts one over the number of copies in each of them. So a single ``all_reduce`` of
    the weighted local sums gives every parameter's sum at once, whatever mixture of sharded, replicated and
    tensor-parallel parameters there is.

    Attributes:
        shapes: The whole shape of each parameter.
        shares: One over the number of processes that hold the same part, for each parameter.
    """

    shapes: tuple[torch.Size, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, model: nn.Module, parameters: Sequence[Tensor]) -> Sharding | None:
        """Find out how ``parameters`` are sharded; None if this process holds all of each of them.

        Knows FSDP (``FullyShardedDataParallel``), FSDP2 (``fully_shard``) and tensor parallelism (DTensor).
        """
        if is_alone():
            return None
        pieces = _flat_pieces(model)
        found = [pieces.get(id(parameter)) or (parameter.shape, _parts(parameter)) for parameter in parameters]
        if not pieces and not any(_is_dtensor(parameter) for parameter in parameters):
            return None
        world = dist.get_world_size()
        return cls(
            shapes=tuple(shape for shape, _ in found),
            shares=tuple(parts / world for _, parts in found),  # what is not sharded is on every process
        )

    def shares_of_gradients(self, parameters: Sequence[Tensor]) -> tuple[float, ...]:
        """Return the share of each gradient, which may be sharded in another way than its parameter.

        That happens after a replicated weight has met a sharded activation. Gradients that are still partial sums
        (sequence parallelism) are added up and stored: the optimizer would do the same a moment later.
        """
        world = dist.get_world_size()
        shares = list(self.shares)
        for index, parameter in enumerate(parameters):
            if parameter.grad is not None and _is_dtensor(parameter.grad):
                parameter.grad = _added_up(parameter.grad)
                shares[index] = _parts(parameter.grad) / world
        return tuple(shares)

    def check_alike(self, names: Sequence[str]) -> None:
        """Make sure that all processes hold parts of the same parameters.

        Raises:
            ValueError: If they do not, as under pipeline parallelism: sums over the processes would mix layers up.
        """
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, list(names))
        if any(other != list(names) for other in gathered):
            raise ValueError(
                "the processes hold different layers (pipeline parallelism?), so gradients cannot be compared over "
                "them. Watch the stages with data or tensor parallelism only, or remove the gradient callback."
            )


def replicas_of(model: nn.Module) -> dist.ProcessGroup | None:
    """Return the processes that train replicas of ``model`` under DistributedDataParallel, None if there are none.

    None too where processes may run out of batches at different times (``join``), and would wait for each other.
    """
    for module in model.modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            alone = module.process_group.size() == 1 or module._join_config.enable
            return None if alone else module.process_group
    return None


def sum_over_processes(values: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Add up ``values``, already weighted, over the processes of ``group`` or all: the only collective of a step."""
    where = _collective_device(values.device)
    total = values.to(where, copy=True)
    dist.all_reduce(total, group=group)
    return total.to(values.device)


def is_alone() -> bool:
    """True where no other process takes part in the training."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def is_first_process() -> bool:
    """True on rank 0 of a distributed run, and in any other run."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def agree(names: list[str]) -> list[str]:
    """Return the first process's ``names`` on every process: a data-dependent forward pass may differ."""
    shared = [names]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of ``tensor``, as a plain tensor that shares its memory."""
    return tensor.to_local() if _is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def _added_up(tensor: Any) -> Tensor:
    """Return a DTensor itself, or its sum over the processes if each has a part of the sum only."""
    if not any(placement.is_partial() for placement in tensor.placements):
        return tensor  # type: ignore[no-any-return]
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if placement.is_partial() else placement for placement in tensor.placements]
    return tensor.redistribute(placements=placements)  # type: ignore[no-any-return]


def _is_dtensor(tensor: Tensor) -> bool:
    return hasattr(tensor, "placements") and hasattr(tensor, "to_local")


def _parts(tensor: Tensor) -> int:
    """Number of parts a tensor is sharded into: 1 for a plain one."""
    if not _is_dtensor(tensor):
        return 1
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    # Not by is_shard(), which is false for the strided shards of FSDP2 over tensor parallelism.
    return math.prod(mesh.size(dim) for dim, placement in enumerate(placements) if not placement.is_replicate())


def _flat_pieces(model: nn.Module) -> dict[int, tuple[torch.Size, int]]:
    """For parameters that FSDP has flattened, by identity: whole shape and number of parts."""
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    pieces: dict[int, tuple[torch.Size, int]] = {}
    for unit in FullyShardedDataParallel.fsdp_modules(model):
        handle = unit._handle  # private, but the only place with the shapes; FSDP1 is no longer developed
        if handle is None:
            continue
        flat: Any = handle.flat_param
        whole = unit.sharding_strategy == ShardingStrategy.NO_SHARD
        parts = 1 if whole else dist.get_world_size(unit.process_group)
        pieces[id(flat)] = (flat._unpadded_unsharded_size, parts)
        for parameter, shape in zip(flat._params or (), flat._shapes, strict=False):
            pieces[id(parameter)] = (shape, parts)
    return pieces


def _collective_device(device: torch.device) -> torch.device:
    if device.type == "cpu" and dist.get_backend() == "nccl":  # parameters offloaded to the host
        return torch.device("cuda", torch.cuda.current_device())
    return device
