"""A weight average does not keep what a rollback has thrown away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from grad_callbacks import GradientGuard
from tests.support.helpers import Regression, batches, fit, mlp


class OneHugeStep(Regression):
    """Takes one step at a learning rate of 1e30: the weights stay finite, and are of no use."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = 1e30 if self.global_step == 150 else 0.01
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("order", [None, 1, -1])
def test_it_begins_again_with_the_restored_weights(depth: int, order: int | None) -> None:
    torch.manual_seed(0)
    module = OneHugeStep(mlp(4, *[32] * (depth - 1), 2), torch.optim.Adam)
    guard = GradientGuard()
    callbacks: list[Any] = [guard] if order is None else [guard, EMAWeightAveraging(decay=0.9)][::order]
    data = batches(40)
    fit(module, *callbacks, data=data, max_steps=300, max_epochs=-1)
    inputs, targets = data.dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        assert float(torch.nn.functional.mse_loss(module.model(inputs), targets)) < 0.1
    assert guard.outcome == "repaired"
    [made] = [made for made in guard.interventions if made.remedy == "Rollback"]
    assert made.detail.get("averages_restarted") == (None if order is None else 1)
