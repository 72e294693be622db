"""Ways of sharding a small network, and what one process with the whole of it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Replicate, Shard
from torch.utils.data import TensorDataset

BATCH, STEPS, BAD_STEP, MAX_NORM = 8, 6, 3, 0.5


class Block(nn.Module):
    """A residual block whose hidden size divides by two but not by four."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width + 2)
        self.down = nn.Linear(2 * width + 2, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Net(nn.Module):
    """Registered out of the order of its forward pass; odd sizes; a layer that is never used, a frozen bias."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(width, 1)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm = nn.LayerNorm(width)
        self.stem = nn.Linear(5, width)
        self.unused = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


ORDER = ["stem", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "norm", "head"]


def samples(world: int) -> TensorDataset:
    """The same samples for every way of sharding; in the bad step one process's are NaN."""
    generator = torch.Generator().manual_seed(1)
    size = BATCH * 2
    inputs, targets = (torch.randn(size * STEPS, n, generator=generator) for n in (5, 1))
    inputs[size * BAD_STEP + 1] = torch.nan  # every second sample goes to the second process
    return TensorDataset(inputs, 3 * targets)


class Module(LightningModule):
    """Trains :class:`Net`, sharded by ``shard``."""

    def __init__(self, shard: Callable[[Net, Any], None] | None, optimizer: str) -> None:
        super().__init__()
        self.net = Net()
        self._shard, self._optimizer = shard, optimizer

    def configure_model(self) -> None:
        if self._shard is not None:
            self._shard(self.net, self.device_mesh)
            self._shard = None

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # FSDP without use_orig_params wants the flattened parameters, which only the outer module knows.
        return optimizer(self._optimizer, self.trainer.strategy.model or self)


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a case by its name."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=name == "fused")


class GlooFSDP(FSDPStrategy):
    """FSDP on the CPU, which Lightning does not offer but torch does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(process_group_backend="gloo", **options)

    def _setup_model(self, model: nn.Module) -> FullyShardedDataParallel:
        return FullyShardedDataParallel(
            model, sharding_strategy=self.sharding_strategy, device_id=torch.device("cpu"), **self.kwargs
        )


def fsdp(sharding: str = "FULL_SHARD", **options: Any) -> Strategy:
    """FSDP of blocks."""
    return GlooFSDP(sharding_strategy=sharding, auto_wrap_policy={Block}, **options)


def fsdp2(net: Net, mesh: Any) -> None:
    """Shard each block, and what is around them, by FSDP2."""
    for block in net.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(net, mesh=mesh["data_parallel"])


def hybrid(net: Net, mesh: Any) -> None:
    """FSDP2 over pairs of processes, two pairs of which hold replicas."""
    both = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for block in net.blocks:
        fully_shard(block, mesh=both)
    fully_shard(net, mesh=both)


def tensor_parallel(net: Net, mesh: Any) -> None:
    """Split the layers of each block by columns and rows."""
    for block in net.blocks:
        parallelize_module(block, mesh["tensor_parallel"], {"up": ColwiseParallel(), "down": RowwiseParallel()})


def sequence_parallel(net: Net, mesh: Any) -> None:
    """The gradients of the norm stay partial sums."""
    leave = PrepareModuleOutput(
        output_layouts=(Replicate(),), desired_output_layouts=(Shard(0),), use_local_output=False
    )
    enter = PrepareModuleInput(input_layouts=(Shard(0),), desired_input_layouts=(Replicate(),), use_local_output=True)
    norm = SequenceParallel(sequence_dim=0, use_local_output=False)
    parallelize_module(net, mesh["tensor_parallel"], {"blocks.1": leave, "norm": norm, "head": enter})


def two_dimensional(net: Net, mesh: Any) -> None:
    """Tensor parallelism within FSDP2."""
    tensor_parallel(net, mesh)
    fsdp2(net, mesh)


def parallel(data: int, tensor: int) -> Callable[[], Strategy]:
    """Make a strategy for a mesh of that many processes for data and for tensors."""
    return lambda: ModelParallelStrategy(
        data_parallel_size=data, tensor_parallel_size=tensor, process_group_backend="gloo"
    )


def ddp() -> Strategy:
    """Replicas."""
    return DDPStrategy(process_group_backend="gloo", find_unused_parameters=True)


# For each case: strategy, how the module shards itself, optimizer, processes, processes of one tensor-parallel group.
CASES: dict[str, tuple[Callable[[], Strategy], Callable[[Net, Any], None] | None, str, int, int]] = {
    "ddp": (ddp, None, "sgd", 2, 1),
    "fsdp": (fsdp, None, "sgd", 2, 1),
    "fsdp-fused": (fsdp, None, "fused", 2, 1),
    "fsdp-flat": (lambda: fsdp(use_orig_params=False), None, "sgd", 2, 1),
    "fsdp-grad-op": (lambda: fsdp("SHARD_GRAD_OP"), None, "adamw", 2, 1),
    "fsdp-no-shard": (lambda: fsdp("NO_SHARD"), None, "sgd", 2, 1),
    "fsdp2": (parallel(2, 1), fsdp2, "sgd", 2, 1),
    "fsdp2-fused": (parallel(2, 1), fsdp2, "fused", 2, 1),
    "tensor": (parallel(1, 2), tensor_parallel, "sgd", 2, 2),
    "sequence": (parallel(1, 2), sequence_parallel, "sgd", 2, 2),
    "hybrid": (parallel(4, 1), hybrid, "sgd", 4, 1),
    "two-dimensional": (parallel(2, 2), two_dimensional, "adamw", 4, 2),
}


def brute_force(name: str) -> dict[str, Any]:
    """The same training in float64 by one process, clipped and skipped by hand."""
    data, net = samples(1), Net().double()
    used = optimizer("adamw" if name == "fused" else name, net)
    layers = {layer: list(net.get_submodule(layer).parameters()) for layer in ORDER}
    seen: dict[str, Any] = {"norms": [], "weight_norms": [], "update_ratios": [], "total": [], "losses": []}
    for step in range(STEPS):
        inputs, targets = (tensor.double() for tensor in data[2 * BATCH * step : 2 * BATCH * (step + 1)])
        used.zero_grad()
        loss = nn.functional.mse_loss(net(inputs), targets)
        loss.backward()
        seen["losses"].append(float(loss))
        seen["norms"].append([norm([p.grad for p in mine]) for mine in layers.values()])
        seen["weight_norms"].append([norm(mine) for mine in layers.values()])
        total = norm([p.grad for p in net.parameters() if p.grad is not None])
        seen["total"].append(total)
        before = {layer: [p.detach().clone() for p in mine] for layer, mine in layers.items()}
        if step != BAD_STEP:
            nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
            used.step()
        moved = [norm([p - b for p, b in zip(mine, before[layer], strict=True)]) for layer, mine in layers.items()]
        seen["update_ratios"].append([m / w for m, w in zip(moved, seen["weight_norms"][-1], strict=True)])
    return seen


def norm(tensors: list[Any]) -> float:
    """The Euclidean norm of all entries, in float64."""
    return float(torch.sqrt(sum(tensor.detach().double().square().sum() for tensor in tensors)))  # type: ignore[arg-type]
