"""An operation that is undefined on one process only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from grad_callbacks import Batch, Engine
from tests.support.distributed.leaving import leave
from tests.support.distributed.together import run_together
from tests.support.helpers import SGD


class Root(nn.Module):
    """Takes the root of some numbers below 0, where it is told to."""

    is_on = False
    also_in_evaluation = True

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt() if self.is_on and (self.training or self.also_in_evaluation) else x


def _train(rank: int, folder: str, is_inside: bool, also_in_evaluation: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    root = Root()
    root.also_in_evaluation = also_in_evaluation
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), root, nn.ReLU(), nn.Linear(8, 2)))
    engine = Engine(model, SGD(model.parameters(), lr=0.05), prescription="full")
    for step in range(40):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * step + rank))
        is_bad = rank == 1 and step >= 20
        root.is_on = is_bad and is_inside
        is_bad = is_bad and not is_inside

        def loss_of(outputs: Tensor, inputs: Tensor = inputs, is_bad: bool = is_bad) -> Tensor:
            error = (outputs - inputs[:, :2]).square().mean()
            return error + (outputs - outputs.detach()).square().sum().sqrt() if is_bad else error

        loss = loss_of(model(inputs))
        engine.optimizer.zero_grad()
        engine.before_backward(loss)
        loss.backward()
        batch = Batch(inputs, step, lambda inputs=inputs, of=loss_of: of(model.module(inputs)))  # type: ignore[misc]
        engine.before_step(loss=loss, batch=batch)
        engine.optimizer.step()
    engine.close()
    told = [
        (made.step, made.remedy, made.detail.get("operations"), made.detail.get("places", "").partition(" at ")[0])
        for made in engine.record.interventions
    ]
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist()
    Path(folder, f"{rank}.json").write_text(json.dumps({"told": told, "weights": weights, "loss": float(loss)}))
    leave()


@pytest.mark.parametrize(
    ("is_inside", "also_in_evaluation", "place"),
    [
        (False, True, ""),
        pytest.param(True, True, "output of 1", marks=pytest.mark.slow),
        pytest.param(True, False, "output of 1 as in evaluation", marks=pytest.mark.slow),
    ],
)
def test_both_processes_mask_alike_and_go_on_learning(
    is_inside: bool, also_in_evaluation: bool, place: str, tmp_path: Path
) -> None:
    run_together(_train, str(tmp_path), is_inside, also_in_evaluation)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    masked = [20, "MaskUndefined", "SqrtBackward0", place]
    assert first["told"] == second["told"] == [[20, "SkipStep", None, ""], masked]
    assert first["weights"] == second["weights"]
    assert first["loss"] < 1.0
