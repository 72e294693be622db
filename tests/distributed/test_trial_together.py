"""A trial on replicas in which something fails on one process only."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from grad_callbacks import Batch, ClipNorm, Engine, OptimizerStep, ReduceLR, Trial
from tests.support.distributed.leaving import leave
from tests.support.distributed.together import run_together
from tests.support.helpers import SGD, mlp
from tests.support.trial_faults import Alarm

ALARM = 12


class Fragile(SGD):
    """Fails on the second process: each step of a copy, or the third copy that is made."""

    def __init__(self, *arguments: Any, fails: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fails, self.original, self.copies = fails, [id(self)], Copies(fails)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.fails == "step" and dist.get_rank() == 1 and self.original != [id(self)]:
            raise torch.OutOfMemoryError("no memory for a step")
        super().step(closure)


class Copies:
    """Counts its copies, and refuses the third."""

    def __init__(self, fails: str) -> None:
        self.fails, self.count = fails, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Copies:
        self.count += 1
        if self.fails == "stage" and dist.get_rank() == 1 and self.count == 3:
            raise torch.OutOfMemoryError("no memory for a copy")
        return self


class FragileClip(ClipNorm):
    """Fails on the second process, when it is switched on or when it acts."""

    fails = ""

    def engage(self, *arguments: Any) -> dict[str, Any] | None:
        if self.fails == "engage" and dist.get_rank() == 1:
            raise torch.OutOfMemoryError("no memory for a remedy")
        return super().engage(*arguments)

    def act(self, step: OptimizerStep) -> bool | Tensor:
        did = super().act(step)
        if did is not False and self.fails == "act" and dist.get_rank() == 1:
            raise torch.OutOfMemoryError("no memory for a gradient")
        return did


def _train(fails: str, rank: int) -> dict[str, Any]:
    torch.manual_seed(0)
    FragileClip.fails = fails
    model = DistributedDataParallel(mlp(4, 8, 2))
    engine = Engine(
        model,
        Fragile(model.parameters(), lr=0.05, fails=fails),
        rules=[Alarm(ALARM)],
        prescription={"exploding": [ReduceLR(0.5), FragileClip(1e-3)]},
        trial=Trial(steps=3),
        diagnose=False,
    )
    for step in range(ALARM + 4):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(2 * step + rank))

        def replay(inputs: Tensor = inputs) -> Tensor:
            return (model.module(inputs) - inputs[:, :2]).square().mean()

        loss = (model(inputs) - inputs[:, :2]).square().mean()
        engine.optimizer.zero_grad()
        loss.backward()
        engine.before_step(loss=loss, batch=Batch(inputs, step, replay))
        engine.optimizer.step()
    engine.close()
    return {
        "trials": [result.to_dict() for result in engine.record.trials],
        "made": [made.remedy for made in engine.record.interventions],
        "weights": torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist(),
    }


def _work(rank: int, folder: str, fails: str) -> None:
    torch.set_num_threads(1)
    store, timeout = f"file://{folder}/store", timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timeout)
    Path(folder, f"{rank}.json").write_text(json.dumps(_train(fails, rank)))
    leave()


@pytest.mark.parametrize(
    ("fails", "finite", "broken", "made"),
    [
        pytest.param("stage", {"none", "FragileClip"}, set(), [], marks=pytest.mark.slow),
        pytest.param("engage", {"none", "ReduceLR"}, set(), [], marks=pytest.mark.slow),
        pytest.param("act", {"none", "ReduceLR"}, {"FragileClip"}, [], marks=pytest.mark.slow),
        ("step", set(), {"none", "ReduceLR", "FragileClip"}, ["ReduceLR"]),
    ],
)
def test_what_fails_on_one_process_breaks_off_on_all(
    fails: str, finite: set[str], broken: set[str], made: list[str], tmp_path: Path
) -> None:
    run_together(_work, str(tmp_path), fails)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["made"] == second["made"] == made
    [scores] = [result["scores"] for result in first["trials"]]
    assert scores == second["trials"][0]["scores"]
    assert {name for name, score in scores.items() if score < float("inf")} == finite
    assert {name for name, score in scores.items() if score == float("inf")} == broken
