"""What a guard takes of memory and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.bench import memory
from grad_callbacks import GradientGuard
from tests.support.helpers import Regression, batches, fit, mlp

WIDE = 512  # 4 * 512 + 512 * 512 + 512 * 2 weights: 1 MiB


class Kept(Callback):
    """Notes what the guard after it holds."""

    def __init__(self, guard: GradientGuard) -> None:
        self.guard, self.nbytes = guard, [0]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.nbytes.append(self.guard.nbytes)


def run(guard: GradientGuard | None) -> tuple[Trainer, list[int]]:
    torch.manual_seed(0)
    module = Regression(mlp(4, WIDE, WIDE, 2), torch.optim.Adam)
    kept = None if guard is None else Kept(guard)
    trainer = fit(module, *([] if guard is None else [kept, guard]), data=batches(120))
    return trainer, [0] if kept is None else kept.nbytes


def test_a_checkpoint_holds_no_snapshots(tmp_path: Path) -> None:
    run(None)[0].save_checkpoint(tmp_path / "bare.ckpt")
    run(GradientGuard())[0].save_checkpoint(tmp_path / "guarded.ckpt")
    sizes = [(tmp_path / f"{name}.ckpt").stat().st_size for name in ("bare", "guarded")]
    assert sizes[1] < 1.02 * sizes[0]


@pytest.mark.parametrize(("memory", "most"), [(0, 0), (3 * 2**20, 3 * 2**20), (0.5, 2.1 * 2**20), (None, 64 * 2**20)])
def test_snapshots_stay_within_the_memory_they_are_given(memory: float | None, most: float) -> None:
    guard = GradientGuard(memory=memory)
    kept = run(guard)[1]
    assert max(kept) <= most
    assert not guard.interventions


def test_files_in_place_of_memory_change_nothing() -> None:
    def weights(memory: float | None) -> tuple[list[Any], list[Any]]:
        class Raised(Regression):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                for group in self.trainer.optimizers[0].param_groups:
                    group["lr"] = 1e30 if batch_idx == 60 else 0.01
                return super().training_step(batch, batch_idx)

        torch.manual_seed(0)
        module, guard = Raised(mlp(4, 32, 32, 2), torch.optim.Adam), GradientGuard(memory=memory)
        fit(module, guard, data=batches(100))
        return list(module.parameters()), [(made.step, made.remedy, made.detail) for made in guard.interventions]

    (in_files, done), (in_memory, wanted) = weights(0), weights(None)
    assert "Rollback" in [remedy for _, remedy, _ in done]
    assert done == wanted
    torch.testing.assert_close(in_files, in_memory, rtol=0, atol=0)


@pytest.mark.slow
def test_the_peak_of_a_process_keeps_the_promise() -> None:
    watched, guarded = (memory.measure(768, 80, how) for how in (memory.MONITOR, memory.GUARD))
    assert guarded["peak"] < memory.PROMISED_PEAK * watched["peak"]
