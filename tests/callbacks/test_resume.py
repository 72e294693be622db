"""A run that is stopped and resumed tells the same story as one that was not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor, ReduceLR, SkipStep
from tests.support.helpers import Poisoned, batches, fit, mlp, trainer

FACTORS = {13: 1e4, 14: 1e4, 18: math.nan, 22: math.nan, 30: 1e4}


class Stream(Poisoned):
    """Makes the batch of a step from the step's number: Lightning does not resume within a data loader."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.global_step))
        return super().training_step([inputs, inputs[:, :2]], batch_idx)


def module() -> Poisoned:
    torch.manual_seed(0)
    return Stream(mlp(4, 8, 8, 2), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), factors=FACTORS)


def guard() -> GradientGuard:
    return GradientGuard({"exploding": [ClipNorm(), ReduceLR(0.5)], "nonfinite": [SkipStep()]})


@pytest.mark.parametrize("stop", [5, 14, 16, 19, 25, 31])
def test_resumed_anywhere_it_tells_the_same_story(stop: int, tmp_path: Path) -> None:
    whole, untouched = guard(), module()
    fit(untouched, whole)

    saver = ModelCheckpoint(tmp_path, every_n_train_steps=stop)
    fit(module(), guard(), saver, enable_checkpointing=True, max_steps=stop)
    [checkpoint] = tmp_path.glob("*.ckpt")

    resumed, continued = guard(), module()
    trainer(resumed).fit(continued, batches(), ckpt_path=checkpoint, weights_only=True)

    assert resumed.alerts == whole.alerts
    assert resumed.interventions == whole.interventions
    assert (resumed.verdict, resumed.outcome) == (whole.verdict, whole.outcome)
    pd.testing.assert_frame_equal(resumed.history(), whole.history())
    for a, b in zip(continued.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_learning_rate_in_the_checkpoint_is_the_users(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=20)
    fit(module(), GradientGuard({"exploding": [ReduceLR(0.1)]}), saver, enable_checkpointing=True, max_steps=20)
    [path] = tmp_path.glob("*.ckpt")
    state = torch.load(path, weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    assert next(v for k, v in state["callbacks"].items() if k.startswith("GradientGuard"))["engines"][0][
        "lr_scale"
    ] == pytest.approx(0.01)


def test_a_checkpoint_without_the_guard_loads_too(tmp_path: Path) -> None:
    saver: Any = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=1)
    fit(module(), saver, enable_checkpointing=True, max_steps=8)
    [path] = tmp_path.glob("*.ckpt")
    monitor = GradientMonitor()
    trainer(monitor).fit(module(), batches(), ckpt_path=path)
    assert monitor.history()["step"].min() == 8
