"""Inputs that come in another unit on all processes, or on one of them only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from grad_callbacks import Batch, Engine
from tests.support.distributed.leaving import leave
from tests.support.distributed.together import run_together
from tests.support.helpers import SGD, mlp


def _train(rank: int, folder: str, ranks: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(mlp(4, 16, 2))
    engine = Engine(model, SGD(model.parameters(), lr=0.05), prescription={"exploding": ["RescaleInputs"]})
    for step in range(70):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * step + rank))
        targets = inputs[:, :2].clone()
        inputs *= 1e3 if rank in ranks and step >= 50 else 1.0
        loss = (model(inputs) - targets).square().mean()
        engine.optimizer.zero_grad()
        loss.backward()
        replay = lambda x=inputs, y=targets: (model.module(x) - y).square().mean()  # noqa: E731
        engine.before_step(loss=loss, batch=Batch(inputs, step, replay))
        engine.optimizer.step()
    engine.close()
    told = [(made.step, made.remedy, made.detail["divisor"]) for made in engine.record.interventions]
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist()
    Path(folder, f"{rank}.json").write_text(json.dumps({"told": told, "weights": weights, "loss": float(loss)}))
    leave()


@pytest.mark.parametrize("ranks", [(0, 1), pytest.param((1,), marks=pytest.mark.slow)])
def test_both_processes_divide_alike_or_not_at_all(ranks: tuple[int, ...], tmp_path: Path) -> None:
    run_together(_train, str(tmp_path), ranks)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["told"] == second["told"]
    if len(ranks) == 2:
        assert [made[:2] for made in first["told"]] == [[50, "RescaleInputs"]]
        assert first["weights"] == second["weights"]
        assert first["loss"] < 1.0
    else:
        assert first["told"] == []
