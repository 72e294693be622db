"""Remedies that treat units or layers for themselves, where two processes share the parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from grad_callbacks import AGC
from grad_callbacks.events import Evidence
from tests.support.distributed.leaving import leave
from tests.support.distributed.together import run_together
from tests.support.helpers import mlp, pending


def _same_as_whole(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for way in ("fsdp2", "fsdp"):
        _check(way, AGC(0.01), AGC(0.01))
    leave()


def _check(way: str, remedy: Any, other: Any) -> None:
    models: list[Any] = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(mlp(4, 6, 6, 3))
    whole, cut = models
    if way == "fsdp2":
        fully_shard(cut)
    else:
        cut = FullyShardedDataParallel(cut, device_id=torch.device("cpu"), use_orig_params=True)
    inputs = torch.randn(8, 4)
    for model in (whole, cut):
        (10 * model(inputs)).square().sum().backward()
    steps = pending(whole), pending(cut)
    assert remedy.engage(steps[0], Evidence({})) is not None
    if way == "fsdp" and isinstance(other, AGC):
        assert other.engage(steps[1], Evidence({})) is None, "flat shards have no whole rows"
        return
    assert other.engage(steps[1], Evidence({})) is not None
    remedy.act(steps[0])
    other.act(steps[1])
    assert steps[0].norm == pytest.approx(steps[1].norm, rel=1e-5)
    if way == "fsdp2":
        for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad.full_tensor(), rtol=1e-4, atol=1e-6)


def test_a_sharded_gradient_is_treated_as_the_whole_would_be(tmp_path: Path) -> None:
    run_together(_same_as_whole, str(tmp_path / "store"))
